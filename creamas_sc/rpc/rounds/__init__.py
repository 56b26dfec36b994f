"""Steps in rounds: agents' calls are exchanged at once, and served in an order that repeats itself.

driver     runs what is ready, and says when a round ends
activity   what runs: acts, and methods that serve calls
busy       agents whose activities wait for more than answers
calls      what they wait for
serving    the methods that are called
exchange   brings calls and answers to the peers, and theirs here
frames     what is sent for that
order      agents' places in the order of spawning
plan       who takes part in a step
steps      the steps of one environment
"""
