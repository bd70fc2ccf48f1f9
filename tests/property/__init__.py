"""What must hold for every input: hypothesis searches for one that breaks it, h11 is the second opinion."""
