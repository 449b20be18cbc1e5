/* train/map_options.c -- the table of `trivet map`: rows of its own, then those of `trivet train`
 * that say what travels. */
#include "train/map_options.h"
#include "train/train_rows.h"
#include <string.h>

#define AT(field) offsetof(struct tv_map_options, field)

static const struct tv_option own_rows[] = {
    {"Machines", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"topology", NULL, TV_OPTION_TEXT, AT(topology), 0, 0, NULL,
     "SPEC[,SPEC...] (required): a file (hwloc XML, NCCL XML, nvidia-smi topo -m), live (this "
     "machine), either with *COUNT behind it, or words: 'node:N [numa:K] gpu:G|cpu:G "
     "[link:none|pairs|mesh|nvswitch] [nic:M] [gpu-bw:GBPS] [nic-bw:GBPS]'"},
    {"network", NULL, TV_OPTION_TEXT, AT(network), 0, 0, NULL,
     "the switches between the nodes: Slurm's topology.conf or topograph YAML"},
    {"arrival", NULL, TV_OPTION_TEXT, AT(arrival), 0, 0, "block",
     "where the launcher puts rank i: block (node after node), cyclic (one per node in turn), or "
     "FILE with one line 'node device' per rank"},
    {"Mesh", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"pp", "pipeline-model-parallel-size", TV_OPTION_INT, AT(train.pp), 1, TV_OPTION_TOP, "1",
     "pipeline stages"},
    {"tp", "tensor-model-parallel-size", TV_OPTION_INT, AT(train.tp), 1, TV_OPTION_TOP, "1",
     "ranks that share each matrix"},
    {"dp", "data-parallel-size", TV_OPTION_INT, AT(train.dp), 1, TV_OPTION_TOP, NULL,
     "replicas; as many as the devices allow by default"},
    {"vpp", "num-virtual-stages-per-pipeline-rank", TV_OPTION_INT, AT(train.vpp), 1, 4096, NULL,
     "chunks of the model per stage; as many as the schedule needs by default"},
    {"Traffic", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"traffic", NULL, TV_OPTION_TEXT, AT(traffic_text), 0, 0, NULL,
     "T,P,D: bytes per step of one tensor group, of one pair of neighbouring stages in one "
     "direction, of one data group; or give the model and the batch"},
    {"exposed", NULL, TV_OPTION_TEXT, AT(exposed_text), 0, 0, "1,1,1",
     "T,P,D: the share of each that compute does not hide, 0 to 1"},
    {"precision", NULL, TV_OPTION_TEXT, AT(precision), 0, 0, NULL,
     "fp32 or bf16, of activations and gradients; by default bf16 on GPUs, fp32 on CPUs"},
    {"sequence-parallel", NULL, TV_OPTION_SWITCH, AT(train.is_sequence_parallel), 0, 0, NULL,
     "stages send each other 1/tp of the activations per rank, not all of them"},
    {"Output", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"json", NULL, TV_OPTION_SWITCH, AT(is_json), 0, 0, NULL,
     "print one JSON object and nothing else"},
    {"svg", NULL, TV_OPTION_TEXT, AT(svg), 0, 0, NULL, "draw machines and layout to FILE"},
    {"emit", NULL, TV_OPTION_TEXT, AT(emit), 0, 0, NULL,
     "KIND[:FILE][,KIND[:FILE]...]: what other launchers need for this order of ranks: "
     "mpich-hostfile, rankfile, slurm-hostfile, torchrun, megatron, deepspeed; without FILE to "
     "standard output, in place of the report"},
    {"width", NULL, TV_OPTION_INT, AT(width), 0, 100000, "0",
     "columns of the report; 0: the terminal's, or 80"},
    {"log-level", NULL, TV_OPTION_TEXT, AT(log_level), 0, 0, "info",
     "debug, info, warn, error or off"},
    {"help", NULL, TV_OPTION_SWITCH, AT(wants_help), 0, 0, NULL, "this text"},
    {"Model and batch, in place of --traffic", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
};
enum { NUM_OWN = sizeof(own_rows) / sizeof(own_rows[0]) };

/* Rows of `trivet train`. */
static const char *const shared[] = {"schedule",
                                     "zero-stage",
                                     "zero-group-size",
                                     "recompute",
                                     "micro-batch-size",
                                     "global-batch-size",
                                     "seq-length",
                                     "model",
                                     "preset",
                                     "config",
                                     "num-layers",
                                     "hidden-size",
                                     "num-attention-heads",
                                     "num-query-groups",
                                     "ffn-hidden-size",
                                     "vocab-size",
                                     "max-position-embeddings",
                                     "untie-embeddings-and-output-weights"};
enum { NUM_SHARED = sizeof(shared) / sizeof(shared[0]) };
_Static_assert((int)NUM_OWN + (int)NUM_SHARED <= TV_OPTION_MAX_ROWS,
               "tv_options_given has a bit for each row");

static void make_table(struct tv_train_rows *rows)
{
    tv_train_rows_begin(
        rows, "map",
        "Usage: trivet map --topology SPEC --pp P --tp T [--dp D] --traffic T,P,D [flags]\n"
        "       trivet map --topology SPEC --pp P --tp T --preset NAME [flags]\n"
        "Lays a mesh over machines so that a step's messages cost least.\n",
        own_rows, NUM_OWN);
    tv_train_rows_take(rows, shared, NUM_SHARED, AT(train));
}

static tv_status_t check_traffic(struct tv_map_options *o)
{
    const char *model_flag = NULL;
    for (int i = 0; i < NUM_SHARED && model_flag == NULL; i++) {
        if (tv_train_options_has(&o->train, shared[i]) && strcmp(shared[i], "schedule") != 0)
            model_flag = shared[i];
    }
    TV_TRY(tv_options_three("exposed", o->exposed_text, "T,P,D such as 1,1,0.5", 1, o->exposed));
    if (o->traffic_text == NULL && model_flag == NULL)
        return TV_ERR(TV_INVALID, "nothing says what travels: give --traffic T,P,D, or the model "
                                  "and the batch, such as --preset gpt2-xl");
    if (o->traffic_text == NULL)
        return TV_OK;
    if (model_flag == NULL && o->precision != NULL)
        model_flag = "precision";
    if (model_flag != NULL)
        return TV_ERR(TV_INVALID, "--traffic and --%s both say what travels; give one", model_flag);
    return tv_options_three("traffic", o->traffic_text, "T,P,D such as 8e11,1e10,1e9", 1e24,
                            o->traffic);
}

static tv_status_t check(struct tv_map_options *o)
{
    if (o->topology == NULL)
        return TV_ERR(TV_INVALID, "--topology is required: a file, or words such as "
                                  "'node:2 gpu:8 link:nvswitch'");
    if (o->precision != NULL && strcmp(o->precision, "fp32") != 0 &&
        strcmp(o->precision, "bf16") != 0)
        return TV_ERR(TV_INVALID, "--precision %s is not one of fp32, bf16", o->precision);
    return check_traffic(o);
}

tv_status_t tv_map_options_parse(int argc, char **argv, struct tv_map_options *options_out)
{
    struct tv_train_rows t;
    struct tv_map_options parsed = {0};
    struct tv_options_given given;
    make_table(&t);
    TV_TRY(tv_train_options_parse(1, argv, &parsed.train)); /* its defaults */
    TV_TRY(tv_options_parse(&t.table, argc, argv, &parsed, &given));
    parsed.train.given = tv_train_rows_given(&t, &given);
    if (!parsed.wants_help)
        TV_TRY(check(&parsed));
    *options_out = parsed;
    return TV_OK;
}

void tv_map_options_help(FILE *out)
{
    struct tv_train_rows t;
    make_table(&t);
    tv_options_help(&t.table, out);
}
