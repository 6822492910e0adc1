"""A page in the browser to try a model and the memory planner on; Gradio, which it needs, comes with an extra."""
