"""What this machine and this project have, what is missing, what that means, and how to get it.

Each module has the checks of one subject; :mod:`himl_container.doctor.examine` runs them, none of them for ever.
"""
