"""Language models behind the port: pydantic-ai for the providers, a script for trying things out.

What imports pydantic-ai is loaded by `configured` when a model is used for the first time: it weighs more than an idle
server may.
"""
