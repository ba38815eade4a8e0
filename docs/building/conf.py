"""Sphinx's configuration."""

from importlib.metadata import version as version_of

project = "lm-eval-eglr"
author = "the lm-eval-eglr authors"
release = version_of("lm-eval-eglr")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}

myst_heading_anchors = 4

autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 100
add_module_names = False

html_theme = "furo"  # no fonts, scripts or pictures from elsewhere
html_title = f"lm-eval-eglr {release}"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
pygments_style = "tango"
html_static_path = ["static"]
html_css_files = ["site.css"]
copybutton_exclude = ".linenos, .gp, .go"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#2a5db0", "color-brand-content": "#2a5db0"},
}
