"""The run protocol as a model small enough to be explored whole: every interleaving, every fault.

`store` is what Redis holds and the promises about histories, `scripts` the protocol, `program` what
a workflow decides, `workers` what a process does with answers, `world` all that can happen next,
`promises` what must hold in every state, `explorer` the search, `configurations` what is searched.
Who changes the protocol changes the model first. Payloads, pages of the tail, and time as a number
are left out; retention, variables and branches never touch the protocol.
"""
