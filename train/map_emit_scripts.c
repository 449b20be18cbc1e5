/* train/map_emit_scripts.c -- launchers that start the ranks of a node as one block. */
#include "train/map_emit_internal.h"
#include <stdlib.h>

/* Each node once? */
static tv_status_t check_blocks(const struct tv_launch *launch, const char *kind)
{
    if (launch->split_node < 0)
        return TV_OK;
    return TV_ERR(TV_UNSUPPORTED,
                  "--emit %s: the ranks of node %s are not in a row, and this launcher can only "
                  "start them so; use slurm-hostfile or mpich-hostfile",
                  kind, launch->plan->topology.nodes[launch->split_node].name);
}

/* A script that is run on every node and finds the node's place by its name. flags: for the trainer. */
static void print_script(const struct tv_emission *e, const struct tv_launch *launch,
                         const char *flags)
{
    const struct tv_node *nodes = e->plan->topology.nodes;
    fprintf(e->out, "export CUDA_DEVICE_ORDER=PCI_BUS_ID\ncase \"$(hostname)\" in\n");
    for (int i = 0; i < launch->num_runs; i++) {
        const struct tv_launch_run *run = &launch->runs[i];
        const char *name = nodes[run->node].name;
        fprintf(e->out, "%s|%s.*) NODE_RANK=%d NPROC=%d GPUS=", name, name, i, run->num);
        tv_launch_print_gpus(launch, run, e->out);
        fputs(" ;;\n", e->out);
    }
    fprintf(e->out,
            "*) echo \"no ranks on $(hostname)\" >&2; exit 2 ;;\nesac\n"
            "export CUDA_VISIBLE_DEVICES=$GPUS\n"
            "exec torchrun --nnodes=%d --node-rank=$NODE_RANK --nproc-per-node=$NPROC \\\n"
            "  --master-addr=%s --master-port=${MASTER_PORT:-29500} \"$@\"%s\n",
            launch->num_runs, nodes[launch->runs[0].node].name, flags);
}

static void note_script(const struct tv_emission *e, const char *program)
{
    tv_emission_note(e, "Use on every node: sh %s %s ...", e->path, program);
    tv_emission_note(e, "Nodes are told apart by what `hostname` prints. Local rank k gets the "
                        "k-th of GPUS;");
    tv_emission_note(e, "rendezvous stays static: c10d would number the nodes anew.");
}

tv_status_t tv_emit_torchrun(const struct tv_emission *e)
{
    const struct tv_mesh_coord c = e->plan->args.extent;
    struct tv_launch launch;
    TV_TRY(tv_launch_make(e->plan, 0, &launch));
    const tv_status_t status = check_blocks(&launch, "torchrun");
    if (status == TV_OK) {
        fputs("#!/bin/sh\n", e->out);
        note_script(e, "train.py");
        tv_emission_note(e,
                         "RANK = (p D + d) T + t: init_device_mesh(\"cuda\", (%d, %d, %d), "
                         "mesh_dim_names=(\"pp\",",
                         c.at[TV_PIPE], c.at[TV_DATA], c.at[TV_TENSOR]);
        tv_emission_note(e, "\"dp\", \"tp\")), or DeepSpeed's PipeModelDataParallelTopology.");
        print_script(e, &launch, "");
    }
    free(launch.runs);
    return status;
}

/* Megatron-LM numbers ranks tp-cp-ep-dp-pp, tensor fastest, or with a flag tp-cp-ep-pp-dp. The
 * coordinates stay those of the layout in both; the second is taken where only it keeps each node's
 * ranks in a row. */
tv_status_t tv_emit_megatron(const struct tv_emission *e)
{
    const struct tv_mesh_coord c = e->plan->args.extent;
    struct tv_launch launch;
    char flags[160];
    TV_TRY(tv_launch_make(e->plan, 0, &launch));
    if (launch.split_node >= 0) {
        free(launch.runs);
        TV_TRY(tv_launch_make(e->plan, 1, &launch));
    }
    const tv_status_t status = check_blocks(&launch, "megatron");
    if (status == TV_OK) {
        snprintf(flags, sizeof(flags),
                 " \\\n  --tensor-model-parallel-size %d --pipeline-model-parallel-size %d%s",
                 c.at[TV_TENSOR], c.at[TV_PIPE],
                 launch.is_data_outer ? " --use-tp-pp-dp-mapping" : "");
        fputs("#!/bin/sh\n", e->out);
        note_script(e, "pretrain_gpt.py");
        tv_emission_note(e,
                         "Megatron-LM's order of ranks: tp-cp-ep-%s, with cp 1 and ep 1; flags "
                         "of chunks are yours.",
                         launch.is_data_outer ? "pp-dp" : "dp-pp");
        print_script(e, &launch, flags);
    }
    free(launch.runs);
    return status;
}

/* Are the GPUs of a run in ascending order? */
static int ascends(const struct tv_launch *launch, const struct tv_launch_run *run)
{
    for (int i = 1; i < run->num; i++) {
        if (tv_launch_place(launch, run->first + i).device <
            tv_launch_place(launch, run->first + i - 1).device)
            return 0;
    }
    return 1;
}

static void print_deepspeed(const struct tv_emission *e, const struct tv_launch *launch)
{
    const struct tv_map_plan *plan = e->plan;
    int num_reordered = 0;
    fprintf(e->notes, "%sUse: deepspeed --hostfile %s --include ", e->prefix, e->path);
    for (int i = 0; i < launch->num_runs; i++) {
        const struct tv_launch_run *run = &launch->runs[i];
        fprintf(e->notes, "%s%s:", i > 0 ? "@" : "", plan->topology.nodes[run->node].name);
        tv_launch_print_gpus(launch, run, e->notes);
        num_reordered += !ascends(launch, run);
    }
    fputs(" train.py ...\n", e->notes);
    tv_emission_note(e, "RANK = (p D + d) T + t, as PipeModelDataParallelTopology counts.");
    if (num_reordered > 0)
        tv_emission_note(e,
                         "NOT EXPRESSED: DeepSpeed sorts the GPUs of a node; on %d node(s) "
                         "local ranks get other GPUs.",
                         num_reordered);
    for (int i = 0; i < launch->num_runs; i++) {
        const int node = launch->runs[i].node;
        fprintf(e->out, "%s slots=%d\n", plan->topology.nodes[node].name,
                tv_topology_shape(&plan->topology, node)->num_gpus);
    }
}

tv_status_t tv_emit_deepspeed(const struct tv_emission *e)
{
    struct tv_launch launch;
    TV_TRY(tv_launch_make(e->plan, 0, &launch));
    const tv_status_t status = check_blocks(&launch, "deepspeed");
    if (status == TV_OK)
        print_deepspeed(e, &launch);
    free(launch.runs);
    return status;
}
