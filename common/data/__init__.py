"""Images and their table, as people have them; splits by lesion."""
