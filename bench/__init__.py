"""What the performance promises are measured with: ``python -m bench`` (see ``__main__``).

Everything runs on this machine against one counterpart: a small authorization server and API in a process of its own.
The parent process knows neither Django nor the app. It tells worker processes what to do, in turns (A B A B …), and turns
their samples into ratios, tables and JSON.
"""
