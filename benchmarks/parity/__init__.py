"""Our results beside those of the authors' script, both run here (github.com/ahmdtaha/knowledge_evolution)."""
