"""A push in a process of its own: ``python push_child.py '<json>'``, started by ``whole_pushes.Machine.start``.

It prints one line of JSON with what the push did and the most memory that the process has held, and ends as the
command line does: with 130 after Ctrl-C, with the exit code of an error.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from himl_container.cache import Cache
from himl_container.errors import HimlError
from himl_container.progress import SilentReporter
from himl_container.publish.model import PushImage, PushLayer
from himl_container.publish.push import push
from himl_container.registry.api import connect
from himl_container.registry.credentials import Credentials
from himl_container.registry.model import Descriptor


def main() -> int:
    spec = json.loads(sys.argv[1])
    layers = tuple(PushLayer(name, diff_id, size=size, path=Path(path)) for name, diff_id, size, path in spec["layers"])
    before = spec["before"]
    try:
        pushed = push(
            PushImage(spec["config"].encode(), layers),
            connect(spec["target"], credentials=Credentials(()), environ={}),
            spec["tag"],
            cache=Cache(Path(spec["cache"])),
            compression="gzip",
            reporter=SilentReporter(),
            before=Descriptor(before["mediaType"], before["digest"], before["size"]) if before else None,
        )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except HimlError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps({"sent": pushed.sent, "bytes": pushed.bytes_sent, "peak": peak_memory()}))
    return 0


def peak_memory() -> int:
    """Return the bytes of memory that this process has held at most.

    Not ``ru_maxrss``, which begins with what the process that started this one held (execve(2) keeps it).
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) << 10


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # As the command line ends: threads that wait for a connection that is dead are not waited for.
    os._exit(code)
