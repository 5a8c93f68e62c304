"""Evaluation: measures of answers and of reward models, with intervals, as reports and pages.

Sub-packages import one way: reward and answers know no other; geval, safety and benchmark may use answers; compare uses
answers, reward and geval; measures uses safety. The modules at this level are below all of them.
May import: curate, and the layers below.
"""
