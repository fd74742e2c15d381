-- What an attempt of a step is, in this order.
local FIELDS = { 'status', 'attemptCount', 'nonce', 'stepId', 'rpcName', 'data', 'retries', 'retryDelay', 'fromStepName',
  'branchTaken', 'childRunId' }
