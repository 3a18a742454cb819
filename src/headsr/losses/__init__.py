"""What a training descends on: tensors in, a scalar out. Only torch and headsr.parts are imported here."""
