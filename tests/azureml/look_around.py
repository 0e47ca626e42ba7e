# What a script finds around itself, written to outputs/seen.json. Runs in a container, with the standard library.

import grp
import hashlib
import json
import os
import platform
import resource
import stat
import sys
from importlib import metadata
from pathlib import Path


def files(root):
    """Return every file and folder below a folder: mode, owner, content."""
    found = {}
    for path in sorted(Path(root).rglob("*")):
        info = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        mode = oct(stat.S_IMODE(info.st_mode))
        found[str(path.relative_to(root))] = {"mode": mode, "owner": [info.st_uid, info.st_gid], "content": content}
    return found


def data(variable):
    """Return what is at the place that a variable names, and whether it can be written to."""
    place = Path(os.environ[variable])
    try:
        (place / "probe").write_text("x")
        (place / "probe").unlink()
        written = "yes"
    except OSError as error:
        written = str(error.errno)
    return {"place": str(place), "files": files(place), "written": written}


def of_process(*names):
    """Return lines of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return [line for line in lines if line.startswith(names)]


memory = os.statvfs("/dev/shm")
seen = {
    "arguments": sys.argv,
    "working_directory": str(Path.cwd()),
    "user": [os.getuid(), os.getgid(), os.getgroups(), grp.getgrgid(os.getgid()).gr_name, str(Path.home())],
    "environment": dict(os.environ),
    "files": files("."),
    "python": [sys.executable, sys.version, sys.prefix, str(sys.flags), sys.path, sys.warnoptions],
    "packages": sorted(f"{item.metadata['Name']} {item.version}" for item in metadata.distributions()),
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name[:7] == "RLIMIT_"},
    "shared_memory": memory.f_blocks * memory.f_frsize,
    "terminal": [os.isatty(channel) for channel in (0, 1, 2)],
    "capabilities": of_process("Cap", "NoNewPrivs", "Seccomp:"),
    "signals": of_process("SigBlk", "SigIgn", "SigCgt"),
    "main": [__name__, __file__, __doc__],
    "input": data("INPUT_0"),
    "output": data("OUTPUT_0"),
    "umask": os.umask(0o22),
    "processors": sorted(os.sched_getaffinity(0)),
    "platform": [platform.system(), platform.release(), platform.machine()],
    "mounts": sorted(
        f"{line.split()[1]} {line.split()[3].split(',')[0]}" for line in Path("/proc/mounts").read_text().splitlines()
    ),
}
Path(os.environ["OUTPUT_0"], "result.txt").write_text("done")
Path("outputs", "seen.json").write_text(json.dumps(seen))
