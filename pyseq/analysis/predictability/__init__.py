"""Is a stream predictable, by how much, and how sure is that?"""
