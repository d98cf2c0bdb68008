"""Renders the street: `python -m input_pipeline.street --output=DIR`."""

from input_pipeline.street import folder

folder.main()
