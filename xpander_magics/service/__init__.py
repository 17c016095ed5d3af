"""The service as the contract has it: requests and their answers, streams, and who may be meant by a name."""
