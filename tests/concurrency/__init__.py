"""What if two things happen at once, or a process is killed?

May use: threads, processes, signals, real databases, the rotator.
Must not use: mocks, or sleeping and hoping.
"""
