"""What the smoke test runs inside the image, with the image's own interpreter.

The sources are sent into the container (:mod:`himl_container.image.smoke_container`), so the modules of this folder
use nothing but each other, :mod:`himl_container.image.elf`, the standard library, and syntax that Python 3.7 reads.
They judge nothing: they find out, and leave the verdict to the host.
"""
