"""Do README, docs, settings and translations say what the code does?

May use: the files of the project, the documents' own samples, processes. Must not use: the network.
"""
