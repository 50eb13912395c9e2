"""How the built-in model `guide.gguf` is made: topics, phrasings, training, export, evaluation."""
