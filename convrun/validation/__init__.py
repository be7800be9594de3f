"""What `convrun validate` looks at: the plan, the built model, the opened data."""
