/* train/split.h -- which units of the model each position of the pipeline holds: --partition. */
#ifndef TV_TRAIN_SPLIT_H
#define TV_TRAIN_SPLIT_H
#include "train/profile.h"
#include "train/run.h"

TV_BEGIN_C
/* uniform: layers as even as possible. The others give every stage as equal a sum as a contiguous split can: of
 * parameters (a tied matrix counts where it is used), of FLOPs, or of measured seconds. */
typedef enum {
    TV_PARTITION_UNIFORM,
    TV_PARTITION_PARAMS,
    TV_PARTITION_FLOPS,
    TV_PARTITION_PROFILE
} tv_partition_t;
TV_MUST_CHECK tv_status_t tv_partition_parse(const char *name, tv_partition_t *partition_out);

/* Fills run->pieces and accepts them. profile: for TV_PARTITION_PROFILE. Pure: the same on every rank.
 * Errors: TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_run_split(struct tv_run *run, tv_partition_t partition,
                                       const struct tv_profile *profile);
/* The last checks of filled pieces: all units in order, within --memory-limit. Errors: TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_run_accept_split(struct tv_run *run);

/* What the solver counts of each stage, [P], under the run's pieces, or under the uniform split: seconds of one
 * micro-batch, and bytes. Those are tv_run_stage_bytes, but for: a stage without layers, which has room for one all
 * the same; units whose largest shard is another replica's (muon), which add up to more; small units that share a
 * bucket (--zero-stage 1), which are cut one by one: some blocks of 16 elements more, with muon a percent less or more.
 * What is chosen is checked by tv_run_accept_split. */
TV_MUST_CHECK tv_status_t tv_split_costs(const struct tv_run *run, const struct tv_profile *profile,
                                         int is_uniform, double *seconds_out, int64_t *bytes_out);
/* Bytes of one rank of a stage by kind, of the replica with most: what training will allocate, exactly.
 * bytes_out [TV_NUM_MEM_KINDS]. */
TV_MUST_CHECK tv_status_t tv_run_stage_bytes(const struct tv_run *run, int stage,
                                             int64_t *bytes_out);
TV_END_C
#endif
