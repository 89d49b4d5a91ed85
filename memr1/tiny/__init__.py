"""The tiny pair: two models made from nothing, so that memr1 can train, evaluate and serve without any download.

weights.py         where the shipped weights lie
build.py           START READING HERE: how they are made
tokenizer.py invented.py forms.py             what the agents read and write
architecture.py induction.py                  the network, and the look-up planted in it
demonstrations.py warm_start.py exam.py       what it is shown, how it learns that, how good it is then
"""
