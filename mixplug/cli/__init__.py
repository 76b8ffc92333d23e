"""The command ``mixplug``: one module per group of commands.

Packages that a command needs are imported inside the command, so ``mixplug --help`` does not wait
for torch.
"""

from __future__ import annotations

import typer

from mixplug.cli import bench, demo, doctor, eval, overview, tools, video, viz, weights

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(demo.app, name="demo")
app.add_typer(bench.app, name="bench")
app.add_typer(viz.app, name="viz")
app.add_typer(weights.app, name="weights")
app.add_typer(video.app, name="video")
app.add_typer(eval.app, name="eval")
app.command("list")(overview.list_)
app.add_typer(doctor.app, name="doctor")
app.command(context_settings=tools.PASS_ON)(tools.train)
app.command(context_settings=tools.PASS_ON)(tools.test)


@app.callback()
def main() -> None:
    """Feature-space mixing for timm and OpenMMLab pipelines, added with one config key."""
