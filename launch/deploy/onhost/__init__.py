"""What runs on a host before anything of this project is there.

Sent as a zip archive over standard input and run from it (``launch/deploy/line.py``); standard library only.
``serve`` reads what is asked and answers, ``look`` says what is here, ``take`` takes what is sent.
"""
