"""Support-desk triage: a customer's message in, a one-line JSON verdict out. README.md says the rest."""
