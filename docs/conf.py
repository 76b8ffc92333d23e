"""Sphinx reads this file. Nothing here needs the network, nor do the pages that it builds."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "_ext")]

import mixplug  # noqa: E402

project = "mixplug"
author = "the mixplug authors"
version = release = mixplug.__version__
html_title = "mixplug"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["mixplug.css"]
html_show_sphinx = html_show_copyright = html_copy_source = False
pygments_style, pygments_dark_style = "friendly", "monokai"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "mathml",
    "docstrings",
    "names_reference",
    "command_reference",
    "models_reference",
    "functional_reference",
    "wide_images",
]
exclude_patterns = ["_build"]
root_doc = "index"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = "$ "

html_math_renderer = "mathml"
autodoc_typehints = "none"  # shapes say more, and stand in the docstrings
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_use_ivar = True
add_module_names = False
# What belongs to other packages has no page here, and no network is asked for one.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!mixplug\.).*")]
