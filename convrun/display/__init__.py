"""What a person sees: plans, components and recipes as text, the progress of a run."""
