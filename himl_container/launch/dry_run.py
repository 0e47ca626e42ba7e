"""The complete plan of a run, for reading: nothing is made, and no daemon is asked."""

from __future__ import annotations

from pathlib import Path

from himl_container.launch.layout import lay_out
from himl_container.launch.nodes import mounts_of, node_config
from himl_container.launch.request import RunPlan
from himl_container.launch.snapshot import EARLIER_RUNS
from himl_container.launch.spec import redacted

RUN_ID = "RUN"
"""Stands for the run's id, which is made when the run starts."""


def plan_as_json(plan: RunPlan, image: str) -> dict[str, object]:
    """Return the plan as JSON values, with secrets hidden.

    :param image: what to say of the image.
    """
    spec, snapshot = plan.spec, plan.snapshot
    layout = lay_out(spec, RUN_ID)
    folder = plan.options.runs / RUN_ID
    mounts = mounts_of(
        spec,
        layout,
        work=snapshot.root if plan.options.live else folder / "work" / "node-0",
        run_folder=folder,
        dataset_folders=plan.options.dataset_folders,
        output_folders=plan.options.output_folders,
    )
    nodes = [
        node_config(spec, layout, RUN_ID, rank=rank, attempt=0, mounts=mounts, gpus=spec.gpus)
        for rank in range(spec.nodes)
    ]
    return {
        "launch": {**spec.to_json(), "image": image},
        "local": plan.options.to_json(),
        "run_folder": str(folder),
        "working_dir": layout.working_dir,
        "mounts": [
            {"source": str(mount.source), "target": mount.target, "read_only": mount.read_only} for mount in mounts
        ],
        "nodes": [{"rank": rank, "environment": dict(redacted(node.environment))} for rank, node in enumerate(nodes)],
        "snapshot": {
            "rules": snapshot.ignore_file or "AzureML's defaults",
            "size": snapshot.size,
            "files": [{"path": file.path, "size": file.size} for file in snapshot.files],
            "ignored": [{"path": item.path, "rule": item.rule} for item in snapshot.ignored],
            "links_out": list(snapshot.outside),
        },
    }


def plan_as_text(plan: RunPlan, image: str) -> str:
    """Return the plan for people."""
    spec, snapshot, options = plan.spec, plan.snapshot, plan.options
    value = plan_as_json(plan, image)
    duration = f"{spec.max_duration:g} s" if spec.max_duration else "no limit"
    lines = [
        f"image          {image}",
        f"command        {' '.join(_word(word) for word in (*spec.command, *spec.arguments))}",
        f"working folder {value['working_dir']} as user {spec.user}",
        f"run folder     {value['run_folder']}",
        f"nodes          {spec.nodes}, GPUs: {spec.gpus}, /dev/shm: {spec.shm_size >> 20} MB, duration: {duration}",
    ]
    if options.preempt:
        lines.append(
            "preempted      " + ", ".join(f"{due:g} s after start {i + 1}" for i, due in enumerate(options.preempt))
        )
    lines.append("mounts")
    lines += [
        f"  {mount['target']} <- {_path(mount['source'])}{' (read-only)' if mount['read_only'] else ''}"
        for mount in value["mounts"]  # type: ignore[attr-defined]
    ]
    lines.append("variables")
    first = value["nodes"][0]["environment"]  # type: ignore[index]
    lines += [f"  {name}={_word(text)}" for name, text in first.items()]
    if options.live:
        lines.append(f"source         the live folder {_path(str(snapshot.root))}; no snapshot is taken")
        return "\n".join(lines)
    rules = value["snapshot"]["rules"]  # type: ignore[index]
    lines.append(f"snapshot       {len(snapshot.files)} files, {snapshot.size} bytes, by the rules of {rules}")
    lines += [f"  {_path(file.path)} ({file.size})" for file in snapshot.files]
    shown = [item for item in snapshot.ignored if item.rule != EARLIER_RUNS]
    lines.append(f"left out       {len(shown)}, and {len(snapshot.ignored) - len(shown)} of earlier runs")
    lines += [f"  {_path(item.path)} by {item.rule}" for item in shown]
    return "\n".join(lines)


def _word(text: str) -> str:
    import shlex

    return shlex.quote(text) if text.isprintable() else repr(text)


def _path(text: str | Path) -> str:
    """Return a path that cannot break the lines of the plan."""
    return str(text) if str(text).isprintable() else repr(str(text))
