-- History entries. Payloads are spliced as the JSON text they are: never decoded, never encoded.
--- include fields opening closing
local LOST = '{"message":"the process that ran this attempt stopped before it ended","name":"AttemptLost"}'
