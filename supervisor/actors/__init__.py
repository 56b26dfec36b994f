"""The actors of a simulation: processes that run an entry and can be asked to stop.

pool             starts all or none, watches, stops in parallel
escalation       the stages of a stop: request, cancel, SIGTERM, SIGKILL
tractor_adapter  one actor, over tractor; the only room that imports it
entry_runner     what runs in the actor's process
"""
