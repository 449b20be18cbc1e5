/* train/train_options.c -- the flags of `trivet train`. */
#include "train/train_options.h"

#define AT(field) offsetof(struct tv_train_options, field)

static const struct tv_option rows[] = {
    {"Mesh", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"pp", "pipeline-model-parallel-size", TV_OPTION_INT, AT(pp), 1, TV_OPTION_TOP, "1",
     "pipeline stages"},
    {"tp", "tensor-model-parallel-size", TV_OPTION_INT, AT(tp), 1, TV_OPTION_TOP, "1",
     "ranks that share each matrix"},
    {"sequence-parallel", NULL, TV_OPTION_SWITCH, AT(is_sequence_parallel), 0, 0, NULL,
     "cut activations between matrices over the tp ranks by rows"},
    {"tp-comm-overlap", NULL, TV_OPTION_SWITCH, AT(is_tensor_overlapped), 0, 0, NULL,
     "let sums and gathers over the tp ranks go on behind matrix products"},
    {"no-overlap-grad-reduce", NULL, TV_OPTION_SWITCH, AT(is_grad_reduce_late), 0, 0, NULL,
     "sum gradients over the dp ranks after the last backward, not during it"},
    {"dp", "data-parallel-size", TV_OPTION_INT, AT(dp), 1, TV_OPTION_TOP, NULL,
     "replicas; inferred from the number of ranks, checked when given"},
    {"zero-stage", NULL, TV_OPTION_INT, AT(zero_stage), 0, 3, "0",
     "what replicas share instead of each holding all: 1 optimizer state, 2 gradients too, 3 "
     "weights too"},
    {"zero-group-size", NULL, TV_OPTION_INT, AT(zero_group), 1, TV_OPTION_TOP, NULL,
     "with --zero-stage: replicas that share, consecutive ones, copied by the others; all, or on "
     "several nodes as many as divide dp and are on one"},
    {"local-ranks", NULL, TV_OPTION_INT, AT(local_ranks), 1, 1024, NULL,
     "run N ranks as threads of this process, without a launcher"},
    {"placement", NULL, TV_OPTION_TEXT, AT(placement), 0, 0, "auto",
     "auto (least time on the wire), identity, or FILE with one mesh rank per line, line i for "
     "world rank i"},
    {"network", NULL, TV_OPTION_TEXT, AT(network), 0, 0, NULL,
     "the switches between the nodes, from topology.conf or topograph YAML; as Slurm says by "
     "default"},
    {"topology", NULL, TV_OPTION_TEXT, AT(topology), 0, 0, NULL,
     "SPEC[,SPEC...] as of trivet map: take the nodes to be what it says, one after the other, in "
     "place of what is found on them; live: the GPUs that are found on them, in place of CPUs"},
    {"probe-links", NULL, TV_OPTION_SWITCH, AT(probe_links), 0, 0, NULL,
     "measure the links for a second in place of guessing their rates"},
    {"bind", NULL, TV_OPTION_TEXT, AT(bind), 0, 0, "auto",
     "auto: each rank runs on its share of the node's CPUs, unless the launcher has bound it; or "
     "none"},
    {"Schedule", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"schedule", NULL, TV_OPTION_TEXT, AT(schedule), 0, 0, NULL,
     "naive, gpipe, 1f1b, interleaved, zb-h1, zb-h2, zb-v, v-half, v-min, dualpipe-v or FILE.csv "
     "(default 1f1b; interleaved with --vpp)"},
    {"vpp", "num-virtual-stages-per-pipeline-rank", TV_OPTION_INT, AT(vpp), 1, TV_OPTION_TOP, NULL,
     "chunks of the model per stage; as many as the schedule needs by default"},
    {"slot-limit", NULL, TV_OPTION_INT, AT(slot_limit), 0, TV_OPTION_TOP, "0",
     "most slots a stage may hold at once; 0: no limit"},
    {"partition", NULL, TV_OPTION_TEXT, AT(partition), 0, 0, "uniform",
     "how layers are split over stages: uniform, params, flops or profile"},
    {"stage-layout", "pipeline-model-parallel-layout", TV_OPTION_TEXT, AT(stage_layout), 0, 0, NULL,
     "the layers of each stage, written out, in place of --partition"},
    {"memory-limit", NULL, TV_OPTION_REAL, AT(memory_limit_mib), 0, TV_OPTION_BIG, "0",
     "MiB that a rank may use; 0: no limit"},
    {"save-profile", NULL, TV_OPTION_TEXT, AT(save_profile), 0, 0, NULL,
     "with --partition profile: write the measured times to FILE"},
    {"load-profile", NULL, TV_OPTION_TEXT, AT(load_profile), 0, 0, NULL,
     "with --partition profile: take them from FILE in place of measuring"},
    {"recompute", "recompute-granularity", TV_OPTION_TEXT, AT(recompute), 0, 0, "none",
     "what the backward computes again to save memory: none, selective or full"},
    {"Batch", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"micro-batch-size", NULL, TV_OPTION_INT64, AT(micro_batch), 1, TV_OPTION_TOP, "1",
     "sequences per micro-batch and replica"},
    {"global-batch-size", NULL, TV_OPTION_INT64, AT(global_batch), 1, TV_OPTION_TOP, NULL,
     "sequences per step, all replicas; micro-batch x dp by default"},
    {"rampup-batch-size", NULL, TV_OPTION_TEXT, AT(rampup_batch), 0, 0, NULL,
     "START,INCREMENT,SAMPLES (or blanks for the commas, quoted): begin with batches of START, "
     "which "
     "grow by INCREMENT to --global-batch-size over the first SAMPLES sequences"},
    {"seq-length", NULL, TV_OPTION_INT64, AT(seq_length), 1, TV_OPTION_TOP, NULL,
     "tokens per sequence; the model's context by default"},
    {"train-iters", NULL, TV_OPTION_INT64, AT(train_iters), 1, TV_OPTION_BIG, NULL,
     "steps to train (required)"},
    {"Model", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"model", NULL, TV_OPTION_TEXT, AT(model), 0, 0, "gpt2", "gpt2 or llama"},
    {"preset", NULL, TV_OPTION_TEXT, AT(preset), 0, 0, NULL,
     "sizes by name: gpt2, gpt2-medium, gpt2-large, gpt2-xl, llama-1b, small-gpt2, small-llama, "
     "tiny-gpt2, tiny-llama"},
    {"config", NULL, TV_OPTION_TEXT, AT(config), 0, 0, NULL,
     "a Hugging Face config.json, in place of the flags of this group"},
    {"num-layers", NULL, TV_OPTION_INT, AT(num_layers), 1, 100000, NULL, "transformer layers"},
    {"hidden-size", NULL, TV_OPTION_INT, AT(hidden_size), 1, 1e7, NULL, "channels"},
    {"num-attention-heads", NULL, TV_OPTION_INT, AT(num_heads), 1, 1e6, NULL, "query heads"},
    {"num-query-groups", NULL, TV_OPTION_INT, AT(num_query_groups), 1, 1e6, NULL,
     "key/value heads; the query heads by default"},
    {"ffn-hidden-size", NULL, TV_OPTION_INT, AT(ffn_size), 1, 1e8, NULL,
     "4 H (gpt2) or 8/3 H rounded up to 64 (llama) by default"},
    {"vocab-size", NULL, TV_OPTION_INT64, AT(vocab_size), 1, TV_OPTION_TOP, NULL,
     "256 by default for text"},
    {"max-position-embeddings", NULL, TV_OPTION_INT, AT(max_positions), 1, TV_OPTION_TOP, NULL,
     "the model's context; --seq-length by default"},
    {"untie-embeddings-and-output-weights", NULL, TV_OPTION_SWITCH, AT(is_untied), 0, 0, NULL,
     "llama: an output matrix of its own"},
    {"init-method-std", NULL, TV_OPTION_REAL, AT(init_std), 0, 1e3, "0.02",
     "standard deviation of the initial matrices"},
    {"norm-epsilon", NULL, TV_OPTION_REAL, AT(norm_eps), TV_OPTION_TINY, 1, "1e-5",
     "epsilon of the norms"},
    {"rotary-base", NULL, TV_OPTION_REAL, AT(rope_theta), 1, 1e12, "10000",
     "theta of the rotary embedding (llama)"},
    {"dropout", NULL, TV_OPTION_REAL, AT(dropout), 0, 0.999, "0",
     "share of elements dropped in training: attention, hidden"},
    {"attention-dropout", NULL, TV_OPTION_REAL, AT(attention_dropout), 0, 0.999, NULL,
     "of the attention's weights; --dropout by default"},
    {"hidden-dropout", NULL, TV_OPTION_REAL, AT(hidden_dropout), 0, 0.999, NULL,
     "of embeddings and what each part of a layer adds; --dropout by default"},
    {"label-smoothing", NULL, TV_OPTION_REAL, AT(label_smoothing), 0, 0.999, "0",
     "share of the target's probability given to all other ids in training"},
    {"Optimizer", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"optimizer", NULL, TV_OPTION_TEXT, AT(optimizer), 0, 0, "adam",
     "adam (AdamW), sgd, lion, or muon (AdamW for what is no matrix of a layer)"},
    {"lr", NULL, TV_OPTION_REAL, AT(lr), 0, 1e6, "3e-4", "highest learning rate"},
    {"min-lr", NULL, TV_OPTION_REAL, AT(min_lr), 0, 1e6, "0",
     "learning rate at the end of the decay"},
    {"lr-warmup-iters", NULL, TV_OPTION_INT64, AT(warmup_iters), 0, TV_OPTION_BIG, "0",
     "steps of linear warm-up"},
    {"lr-warmup-fraction", NULL, TV_OPTION_REAL, AT(warmup_fraction), 0, 1, NULL,
     "the same as a part of --lr-decay-iters, rounded to whole steps"},
    {"lr-warmup-init", NULL, TV_OPTION_REAL, AT(warmup_init), 0, 1e6, "0",
     "learning rate from which the warm-up starts"},
    {"lr-decay-iters", NULL, TV_OPTION_INT64, AT(decay_iters), 0, TV_OPTION_BIG, NULL,
     "step at which the decay ends; --train-iters by default"},
    {"lr-decay-style", NULL, TV_OPTION_TEXT, AT(lr_decay_style), 0, 0, "cosine",
     "cosine, linear, constant, inverse-square-root, or WSD (warm-up, stable, decay)"},
    {"lr-wsd-decay-iters", NULL, TV_OPTION_INT64, AT(wsd_decay_iters), 1, TV_OPTION_BIG, NULL,
     "with WSD: steps of its decay, the last ones of --lr-decay-iters (required)"},
    {"lr-wsd-decay-style", NULL, TV_OPTION_TEXT, AT(wsd_decay_style), 0, 0, "exponential",
     "with WSD: exponential, linear, cosine or minus_sqrt"},
    {"decoupled-lr", NULL, TV_OPTION_REAL, AT(decoupled_lr), 0, 1e6, NULL,
     "--lr of the token embeddings and the output matrix; --lr by default"},
    {"decoupled-min-lr", NULL, TV_OPTION_REAL, AT(decoupled_min_lr), 0, 1e6, NULL,
     "--min-lr of the same; --min-lr by default"},
    {"weight-decay", NULL, TV_OPTION_REAL, AT(weight_decay), 0, 1e6, "0.1",
     "decoupled decay of matrices"},
    {"adam-beta1", NULL, TV_OPTION_REAL, AT(beta1), 0, 0.9999999999, "0.9",
     "decay of the first moment"},
    {"adam-beta2", NULL, TV_OPTION_REAL, AT(beta2), 0, 0.9999999999, "0.95",
     "decay of the second moment"},
    {"adam-eps", NULL, TV_OPTION_REAL, AT(adam_eps), TV_OPTION_TINY, 1, "1e-8",
     "added to the root of the second moment"},
    {"sgd-momentum", NULL, TV_OPTION_REAL, AT(sgd_momentum), 0, 0.9999999999, "0.9",
     "decay of the momentum"},
    {"lion-beta1", NULL, TV_OPTION_REAL, AT(lion_beta1), 0, 0.9999999999, "0.9",
     "share of the momentum in the sign"},
    {"lion-beta2", NULL, TV_OPTION_REAL, AT(lion_beta2), 0, 0.9999999999, "0.99",
     "decay of the momentum"},
    {"muon-momentum", NULL, TV_OPTION_REAL, AT(muon_momentum), 0, 0.9999999999, "0.95",
     "decay of the momentum of matrices (Nesterov)"},
    {"clip-grad", NULL, TV_OPTION_REAL, AT(clip_grad), 0, 1e12, "1.0",
     "largest gradient norm; 0 turns clipping off"},
    {"skip-bad-steps", NULL, TV_OPTION_INT64, AT(skip_bad_steps), 0, TV_OPTION_BIG, "0",
     "skip up to N steps in a row whose loss or norm is not finite"},
    {"precision", NULL, TV_OPTION_TEXT, AT(precision), 0, 0, NULL,
     "of weights, activations and their messages: fp32, or bf16 with fp32 sums, gradients of "
     "weights and master weights, or tf32 (GPUs: fp32 whose products round their factors); by "
     "default bf16 on GPUs and fp32 on CPUs"},
    {"grad-reduce-dtype", NULL, TV_OPTION_TEXT, AT(grad_reduce_dtype), 0, 0, "fp32",
     "in which gradients travel over the data axis: fp32 or bf16"},
    {"grad-reduce-in-bf16", NULL, TV_OPTION_SWITCH, AT(is_grad_reduce_bf16), 0, 0, NULL,
     "the same as --grad-reduce-dtype bf16"},
    {"seed", NULL, TV_OPTION_INT64, AT(seed), 0, TV_OPTION_BIG, "1234",
     "of initial weights and sample order"},
    {"Data", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"data", "data-path,train-data-path", TV_OPTION_LIST, AT(data), 0, 0, NULL,
     "token files to train on (required): FILE or PATTERN of shards, or each with :WEIGHT to blend "
     "them; Megatron-LM's WEIGHT FILE ... means the same"},
    {"mock-data", NULL, TV_OPTION_SWITCH, AT(is_mock_data), 0, 0, NULL,
     "random tokens of the seed in place of --data"},
    {"data-format", NULL, TV_OPTION_TEXT, AT(data_format), 0, 0, "auto",
     "auto, text (bytes), u16, u32 (little-endian, no header), llmc or megatron (.bin and .idx)"},
    {"valid-data", "valid-data-path", TV_OPTION_LIST, AT(valid_data), 0, 0, NULL,
     "token files to evaluate on, each by itself, and the mean over all their tokens"},
    {"eval-interval", NULL, TV_OPTION_INT64, AT(eval_interval), 0, TV_OPTION_BIG, "0",
     "steps between evaluations; 0: only at the end"},
    {"mask-token", NULL, TV_OPTION_INT64, AT(mask_token), 0, TV_OPTION_TOP, NULL,
     "targets equal to this id are not counted"},
    {"shuffle", NULL, TV_OPTION_TEXT, AT(shuffle), 0, 0, "on", "on, or off for file order"},
    {"eod-token", NULL, TV_OPTION_INT64, AT(eod_token), 0, TV_OPTION_TOP, NULL,
     "the id that ends a document"},
    {"samples-cross-documents", NULL, TV_OPTION_TEXT, AT(samples_cross_documents), 0, 0, "on",
     "on: samples are cut from all tokens in a row; off: from each document by itself, the last "
     "one "
     "filled up with what is not counted"},
    {"eod-mask-loss", NULL, TV_OPTION_SWITCH, AT(masks_eod_loss), 0, 0, NULL,
     "do not count the targets that follow --eod-token"},
    {"reset-position-ids", NULL, TV_OPTION_SWITCH, AT(resets_position_ids), 0, 0, NULL,
     "count positions from 0 behind --eod-token"},
    {"reset-attention-mask", NULL, TV_OPTION_SWITCH, AT(resets_attention_mask), 0, 0, NULL,
     "let no token see what is before an --eod-token"},
    {"Run", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"device", NULL, TV_OPTION_TEXT, AT(device), 0, 0, "auto",
     "cpu, cuda (an NVIDIA GPU for each rank), or auto: cuda where there is one"},
    {"comm", NULL, TV_OPTION_TEXT, AT(comm), 0, 0, "auto",
     "how tensors on GPUs move: nccl, mpi (through host memory; ranks may share a GPU), or auto: "
     "nccl where each rank has a GPU of its own"},
    {"threads", NULL, TV_OPTION_INT, AT(num_threads), 1, 4096, NULL,
     "threads of each rank's kernels; a fair share of the cores by default"},
    {"init-from", NULL, TV_OPTION_TEXT, AT(init_from), 0, 0, NULL,
     "initial weights: a safetensors file or a Hugging Face folder"},
    {"save", NULL, TV_OPTION_TEXT, AT(save), 0, 0, NULL,
     "write checkpoints to DIR/step-N; one at the end in any case"},
    {"save-interval", NULL, TV_OPTION_INT64, AT(save_interval), 0, TV_OPTION_BIG, "0",
     "steps between checkpoints; 0: only at the end"},
    {"keep", NULL, TV_OPTION_INT64, AT(keep), 0, TV_OPTION_BIG, "0",
     "remove the oldest checkpoints of --save beyond N; 0: keep all"},
    {"save-async", "async-save", TV_OPTION_SWITCH, AT(is_save_async), 0, 0, NULL,
     "write checkpoints while training goes on, from a copy in host memory"},
    {"load", NULL, TV_OPTION_TEXT, AT(load), 0, 0, NULL,
     "go on from DIR, a checkpoint or the newest valid one in it; auto: the newest valid one in "
     "--save, or from the start when there is none"},
    {"finetune", NULL, TV_OPTION_SWITCH, AT(is_finetune), 0, 0, NULL,
     "take only the weights from --load DIR and begin at step 1 with this run's flags"},
    {"no-load-optim", NULL, TV_OPTION_SWITCH, AT(is_optimizer_fresh), 0, 0, NULL,
     "go on from --load with moments of zero, as a new optimizer has"},
    {"no-load-rng", NULL, TV_OPTION_SWITCH, AT(is_rng_fresh), 0, 0, NULL,
     "accepted for scripts: random numbers have no state that could be loaded"},
    {"override-opt_param-scheduler", NULL, TV_OPTION_SWITCH, AT(is_rate_own), 0, 0, NULL,
     "with --load: learning rates of this run's flags and their defaults alone; without it a flag "
     "that is not given is as in the checkpoint's run"},
    {"use-checkpoint-opt_param-scheduler", NULL, TV_OPTION_SWITCH, AT(is_rate_stored), 0, 0, NULL,
     "with --load: learning rates of the checkpoint's run, whatever this run's flags say"},
    {"metrics", NULL, TV_OPTION_TEXT, AT(metrics), 0, 0, NULL,
     "write one JSON object per step to FILE"},
    {"trace", NULL, TV_OPTION_TEXT, AT(trace), 0, 0, NULL,
     "write what each rank did when to FILE, in Chrome's trace format"},
    {"trace-steps", NULL, TV_OPTION_INT64, AT(trace_steps), 1, TV_OPTION_BIG, "1",
     "how many of the last steps are traced"},
    {"export-hf", NULL, TV_OPTION_TEXT, AT(export_hf), 0, 0, NULL,
     "write the final weights to this folder in Hugging Face's layout"},
    {"dump-grads", NULL, TV_OPTION_TEXT, AT(dump_grads), 0, 0, NULL,
     "write the gradients of step 1, before clipping, to this folder"},
    {"log-sample-ids", NULL, TV_OPTION_TEXT, AT(log_sample_ids), 0, 0, NULL,
     "write the sample numbers that each step read to FILE"},
    {"log-interval", NULL, TV_OPTION_INT64, AT(log_interval), 1, TV_OPTION_BIG, "10",
     "steps between lines when the output is not a terminal"},
    {"timeout", NULL, TV_OPTION_REAL, AT(timeout_seconds), 0.001, 1e9, "120",
     "seconds a rank waits for another before it gives up"},
    {"exit-after", "exit-duration-in-mins", TV_OPTION_REAL, AT(exit_after_minutes), TV_OPTION_TINY,
     1e9, NULL, "minutes after which the run stops behind a step, saves, and exits with code 75"},
    {"dry-run", NULL, TV_OPTION_SWITCH, AT(is_dry_run), 0, 0, NULL,
     "print mesh, layer map, parameters and memory, and stop"},
    {"json", NULL, TV_OPTION_SWITCH, AT(is_json), 0, 0, NULL, "with --dry-run: as one JSON object"},
    {"deterministic", NULL, TV_OPTION_SWITCH, AT(is_deterministic), 0, 0, NULL,
     "same mesh twice, same bits: always so; accepted for scripts"},
    {"args", NULL, TV_OPTION_ARGS, AT(args_file), 0, 0, NULL,
     "read flags from FILE (words, # comments); the command line wins"},
    {"log-level", NULL, TV_OPTION_TEXT, AT(log_level), 0, 0, "info",
     "debug, info, warn, error or off"},
    {"help", NULL, TV_OPTION_SWITCH, AT(wants_help), 0, 0, NULL, "this text"},
};
enum { NUM_ROWS = sizeof(rows) / sizeof(rows[0]) };
_Static_assert(NUM_ROWS <= TV_OPTION_MAX_ROWS, "tv_options_given has a bit for each row");

const struct tv_option_table tv_train_option_table = {
    rows, NUM_ROWS, "train",
    "Usage: mpiexec -n RANKS trivet train [flags]\n"
    "       trivet train --local-ranks RANKS [flags]\n"
    "Trains a GPT-2 or Llama model over a pipeline x data x tensor mesh of ranks.\n"};

tv_status_t tv_train_options_parse(int argc, char **argv, struct tv_train_options *options)
{
    struct tv_train_options parsed = {.decay_iters = -1,
                                      .mask_token = -1,
                                      .eod_token = -1,
                                      .attention_dropout = -1,
                                      .hidden_dropout = -1};
    TV_TRY(tv_options_parse(&tv_train_option_table, argc, argv, &parsed, &parsed.given));
    *options = parsed;
    return TV_OK;
}

tv_status_t tv_train_options_reset(struct tv_train_options *options, const char *name)
{
    char *no_words[] = {NULL};
    struct tv_train_options fresh;
    TV_TRY(tv_train_options_parse(1, no_words, &fresh));
    tv_options_take_back(&tv_train_option_table, &options->given, options, &fresh, name);
    return TV_OK;
}

void tv_train_options_free(struct tv_train_options *options)
{
    tv_options_free(&options->given);
}

int tv_train_options_has(const struct tv_train_options *options, const char *name)
{
    return tv_options_has(&tv_train_option_table, &options->given, name);
}

void tv_train_options_help(FILE *out)
{
    tv_options_help(&tv_train_option_table, out);
}
