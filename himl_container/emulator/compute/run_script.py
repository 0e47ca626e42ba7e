"""Runs a script in a job's container as ``python script`` would, then lets the SDK send what it still holds.

The SDK collects metrics for a second before it sends them, and does not do so at its own end: AzureML's runner asks it
to (``SendRunKillSignal`` in ``_history/utils/context_managers.py`` of the SDK). This file is that runner. It is mounted
into the container and runs in the image's own interpreter, so it uses nothing but old features of the standard library.
"""


def _himl_run() -> None:
    import os
    import sys
    import types

    def send() -> None:
        runs = sys.modules.get("azureml._run_impl.run_base")
        if runs is None:
            return
        timeout = os.environ.get("AZUREML_RUN_KILL_SIGNAL_TIMEOUT_SEC", "")
        try:
            runs._RunBase._kill(timeout=int(timeout) if timeout.isdigit() else 300)
        except Exception as error:  # noqa: BLE001 - the script's own end is what counts
            sys.stderr.write("What the AzureML SDK still held could not be sent: %s\n" % (error,))  # noqa: UP031

    def show(kind: "type[BaseException]", error: BaseException, trace: "types.TracebackType | None") -> None:
        # The two frames of this file are of no interest to the script's author.
        rest = trace
        for _ in range(2):
            rest = rest and rest.tb_next
        sys.__excepthook__(kind, error.with_traceback(rest), rest)

    # The log has both, and through two pipes their order would be lost, also within a line.
    os.dup2(1, 2)
    del sys.argv[0]
    script = sys.argv[0]
    sys.path[0] = os.path.dirname(os.path.abspath(script))  # noqa: PTH100, PTH120
    sys.excepthook = show
    # The script gets the real __main__: what it starts or pickles finds it by that name.
    space = sys.modules["__main__"].__dict__
    for name in [name for name in space if not name.startswith("__")]:
        del space[name]
    space["__file__"] = os.path.abspath(script) if sys.version_info >= (3, 9) else script  # noqa: PTH100
    space["__doc__"] = None
    if "__annotations__" in space:  # there from the start, until Python 3.13
        space["__annotations__"] = {}
    try:
        with open(script, "rb") as file:
            code = compile(file.read(), script, "exec", dont_inherit=True)
        exec(code, space)  # noqa: S102 - that is what it is for
    finally:
        send()


if __name__ == "__main__":
    _himl_run()
