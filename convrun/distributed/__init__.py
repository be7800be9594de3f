"""The processes of a run: how they find each other, agree, compute as one, and end together."""
