"""A request to its answers: plan, walk, exact search, filters, votes and tuning."""
