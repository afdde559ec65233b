"""How well a model predicts text under each scheme, and by how much less than in float."""
