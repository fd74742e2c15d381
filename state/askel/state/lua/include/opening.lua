-- Entries of the history that open an attempt, or move it on: small, they name no first attempt.
local function opened(at, body)
  return '{"at":' .. at .. ',' .. body .. '}'
end

local function of_attempt(number)
  return tonumber(number) > 1 and ',"attempt":' .. number or ''
end

-- name: as JSON.
local function step_entry(at, name, status, attempt)
  return '{"at":' .. at .. ',"t":"step","name":' .. name .. ',"status":"' .. status .. '"' .. of_attempt(attempt) .. '}'
end
