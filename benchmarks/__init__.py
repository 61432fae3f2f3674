"""robustvid's strength and speed beside those of other libraries; each module is a command."""
