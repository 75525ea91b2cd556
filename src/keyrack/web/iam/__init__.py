"""IAM (Keystone v3) and the proofs that Huawei's APIs take."""
