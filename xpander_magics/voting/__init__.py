"""Two answers, and which of them is better: what people and judges have said, and what it comes to."""
