"""Overlap of communication changes no bit: losses, norms and weights with it and without, over threads and over MPI."""
import unittest

import trivet


class Overlap(trivet.Training):
    model = {"seq_length": 256, "num_layers": 2, "global_batch_size": 4, "train_iters": 3}  # sums in several pieces

    def check(self, switch, **flags):
        for mpi in (False, True):
            with self.subTest(mpi=mpi, **flags):
                want = self.train_and_export(mpi=mpi, **flags)
                self.assert_same_bits(self.train_and_export(mpi=mpi, **flags, **{switch: True}), want)

    def test_tensor_axis(self):
        self.check("tp_comm_overlap", tp=2)
        self.check("tp_comm_overlap", tp=2, sequence_parallel=True)

    def test_tensor_axis_with_backward_in_two_parts(self):
        self.check("tp_comm_overlap", tp=2, pp=2, schedule="zb-h1", sequence_parallel=True, recompute="full")

    def test_data_axis(self):
        self.check("no_overlap_grad_reduce", dp=2)


if __name__ == "__main__":
    unittest.main()
