/* train/trainer.c -- builds one rank of a run: files first, then mesh, model, executor, buckets, optimizer.
 *
 * What may fail on one rank alone (a file, memory) is agreed on by all ranks before the next part is built, so that
 * every rank returns the same status and nobody waits for a rank that has left. */
#include "base/clock.h"
#include "train/checkpoint_internal.h"
#include "train/file_faults.h"
#include "train/hf.h"
#include "train/run_device.h"
#include "train/setup.h"
#include "train/trainer_internal.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static struct tv_corpus_args corpus_args(const struct tv_run *run, const char *flag,
                                         const struct tv_option_list *words, int is_mock)
{
    const struct tv_train_options *o = &run->options;
    return (struct tv_corpus_args){.flag = flag,
                                   .words = *words,
                                   .format = o->data_format,
                                   .seq_length = run->seq_length,
                                   .is_within_documents =
                                       strcmp(o->samples_cross_documents, "off") == 0,
                                   .eod_token = o->eod_token,
                                   .shuffle = run->shuffle,
                                   .seed = (uint64_t)o->seed,
                                   .mock_vocab = is_mock ? run->model.vocab_size : 0};
}

static tv_status_t try_corpus(const struct tv_run *run, const char *flag,
                              const struct tv_option_list *words)
{
    const struct tv_corpus_args args = corpus_args(run, flag, words, 0);
    struct tv_corpus *corpus = NULL;
    if (args.is_within_documents) /* to find them is to read the file */
        return TV_OK;
    TV_TRY(tv_corpus_open(&args, &corpus));
    tv_corpus_close(corpus);
    return TV_OK;
}

tv_status_t tv_trainer_try_data(const struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    if (!o->is_mock_data)
        TV_TRY(try_corpus(run, "data", &o->data));
    for (int i = 0; i < o->valid_data.num; i++) {
        const struct tv_option_list one = {1, {o->valid_data.words[i]}};
        TV_TRY(try_corpus(run, "valid-data", &one));
    }
    return TV_OK;
}

static tv_status_t open_corpus(struct tv_trainer *tr, const char *flag,
                               const struct tv_option_list *words, int is_mock,
                               struct tv_corpus **corpus_out)
{
    const struct tv_corpus_args args = corpus_args(tr->run, flag, words, is_mock);
    TV_TRY(tv_corpus_open(&args, corpus_out));
    if (tv_mesh_rank(tr->mesh) == 0) /* one reader is enough to refuse */
        TV_TRY(tv_corpus_check(*corpus_out, tr->run->model.vocab_size));
    return TV_OK;
}

static tv_status_t open_files(void *context)
{
    struct tv_trainer *tr = context;
    const struct tv_train_options *o = &tr->run->options;
    TV_TRY(open_corpus(tr, "data", &o->data, o->is_mock_data, &tr->data));
    for (; tr->num_valid < o->valid_data.num; tr->num_valid++) {
        const struct tv_option_list one = {1, {o->valid_data.words[tr->num_valid]}};
        TV_TRY(open_corpus(tr, "valid-data", &one, 0, &tr->valid[tr->num_valid]));
    }
    if (tv_mesh_rank(tr->mesh) != 0)
        return TV_OK;
    if (o->export_hf != NULL)
        TV_TRY(tv_hf_folder_prepare(o->export_hf));
    if (o->dump_grads != NULL)
        TV_TRY(tv_hf_folder_prepare(o->dump_grads));
    if (o->save != NULL)
        TV_TRY(tv_folder_prepare(tr->run));
    if (o->log_sample_ids != NULL) {
        tr->sample_log =
            fopen(o->log_sample_ids, tv_checkpoint_first_step(tr->run) > 0 ? "a" : "w");
        if (tr->sample_log == NULL)
            return TV_ERR(TV_INVALID, "--log-sample-ids %s: %s", o->log_sample_ids,
                          strerror(errno));
    }
    return TV_OK;
}

static tv_status_t alloc_host(struct tv_trainer *tr)
{
    const struct tv_run *run = tr->run;
    const size_t tokens = (size_t)(run->micro_batch * run->seq_length);
    const size_t samples = (size_t)(run->global_batch / run->extent.at[TV_DATA]);
    tr->ids = calloc(tokens, sizeof(*tr->ids));
    tr->targets = calloc(tokens, sizeof(*tr->targets));
    tr->positions = calloc(tokens, sizeof(*tr->positions));
    tr->first_keys = calloc(tokens, sizeof(*tr->first_keys));
    tr->sample = calloc((size_t)run->seq_length + 1, sizeof(*tr->sample));
    tr->sample_ids = calloc(samples, sizeof(*tr->sample_ids));
    if (!tr->ids || !tr->targets || !tr->positions || !tr->first_keys || !tr->sample ||
        !tr->sample_ids)
        return TV_ERR(TV_NO_MEMORY, "token buffers of %zu tokens", tokens);
    return TV_OK;
}

tv_status_t tv_trainer_kernels(const struct tv_trainer *tr, tv_dtype_t dtype,
                               const struct tv_kernels **kernels_out)
{
    TV_TRY(tv_kernels_open(tr->device, dtype, kernels_out));
    if (tr->run->kernel_times != NULL)
        *kernels_out = tv_kernels_timed(*kernels_out, tr->run->kernel_times);
    return TV_OK;
}

/* What this rank owns, and from ZeRO stage 2 on the place that it is in. */
static tv_status_t create_store(struct tv_trainer *tr)
{
    TV_TRY(tv_sharding_create(tr->run, tr->here.at[TV_PIPE], tr->here.at[TV_DATA], &tr->sharding));
    if (tr->run->zero_stage < 2)
        return TV_OK;
    struct tv_store_args args = {.run = tr->run,
                                 .sharding = &tr->sharding,
                                 .data = tr->zero.shards,
                                 .copies = tr->zero.copies,
                                 .stream = tr->stream};
    TV_TRY(tv_trainer_kernels(tr, TV_F32, &args.kernels));
    TV_TRY(tv_store_create(&args, &tr->store));
    tr->weights = tv_store_params(tr->store);
    tr->grads = tv_store_grads(tr->store);
    return TV_OK;
}

/* What the optimizer updates: the weights, or masters of what this rank owns. */
static tv_status_t create_params(struct tv_trainer *tr)
{
    const struct tv_stored_weights *w = &tr->weights;
    const int is_sharded = tr->run->zero_stage > 0;
    const int64_t bytes = tv_run_master_bytes(tr->run, tr->sharding.shards.own_count);
    if (w->dtype == TV_F32) {
        tr->params = (struct tv_weight_array){w->data, w->is_compact, w->is_whole};
        return TV_OK;
    }
    TV_TRY(tv_buffer_create(tr->device, (size_t)bytes, TV_MEM_OPTIMIZER, &tr->masters));
    tr->params = (struct tv_weight_array){tr->masters.data, is_sharded, !is_sharded};
    return TV_OK;
}

static tv_status_t create_device(struct tv_trainer *tr, int num_threads)
{
    TV_TRY(tv_run_open_device(tr->world, tr->run, num_threads, &tr->device));
    TV_TRY(tv_stream_create(tr->device, &tr->stream));
    tv_stream_set_name(tr->stream, "compute");
    return tv_stream_reserve(tr->stream, (size_t)tv_run_workspace_bytes(tr->run));
}

static tv_status_t create_model(struct tv_trainer *tr)
{
    const struct tv_kernels *kernels;
    TV_TRY(tv_trainer_kernels(tr, tr->run->dtype, &kernels));
    struct tv_model_chunk *chunks = calloc((size_t)tr->run->num_chunks, sizeof(*chunks));
    tr->costs = calloc((size_t)tr->run->num_chunks, sizeof(*tr->costs));
    if (chunks == NULL || tr->costs == NULL) {
        free(chunks);
        return TV_ERR(TV_NO_MEMORY, "%d chunks", tr->run->num_chunks);
    }
    struct tv_model_args args = tv_run_model_args(tr->run, tr->here.at[TV_PIPE], chunks);
    args.axis = (struct tv_tensor_axis){.comm = tv_mesh_comm(tr->mesh, TV_TENSOR),
                                        .stream = tr->stream,
                                        .kernels = kernels,
                                        .is_alone = tv_comm_size(tv_mesh_world(tr->mesh)) == 1};
    const int model_fills = tr->run->dtype == TV_F32 && tr->run->options.init_from == NULL &&
                            tr->run->checkpoint == NULL;
    args.leaves_params = !model_fills;
    tv_status_t status = create_store(tr);
    args.store = tr->store != NULL ? tv_store_lender(tr->store) : NULL;
    if (status == TV_OK)
        status = tv_model_create(&args, &tr->model);
    free(chunks);
    TV_TRY(status);
    if (tr->store == NULL) {
        const int is_whole = tr->run->zero_stage == 0;
        tr->weights = (struct tv_stored_weights){tv_model_params(tr->model), tr->run->dtype, 0, 1};
        tr->grads = (struct tv_weight_array){tv_model_grads(tr->model), 0, is_whole};
    }
    TV_TRY(create_params(tr));
    if (tr->run->checkpoint != NULL)
        return TV_OK; /* they come from there, when the optimizer is there too */
    if (tr->store == NULL && model_fills)
        return TV_OK;
    return tv_trainer_fill_weights(tr, tr->run->options.init_from);
}

static tv_status_t create_buckets(struct tv_trainer *tr)
{
    const struct tv_sharding *s = &tr->sharding;
    struct tv_comm *data = tv_mesh_comm(tr->mesh, TV_DATA);
    tr->grad_pieces = calloc((size_t)s->num_pieces + 1, sizeof(*tr->grad_pieces));
    tr->branches_done = calloc((size_t)tr->run->model.num_layers + 2, 1);
    if (tr->grad_pieces == NULL || tr->branches_done == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d pieces of gradients", s->num_pieces);
    for (int i = 0; i < s->num_pieces; i++)
        tr->grad_pieces[i] =
            (struct tv_grad_piece){s->pieces[i].local, s->pieces[i].count,
                                   tr->grads.data + tv_piece_offset(&tr->grads, &s->pieces[i])};
    if (tr->store != NULL)
        return TV_OK;
    if (tr->run->zero_stage > 0)
        TV_TRY(tv_buckets_create_sharded(tr->zero.shards, tr->zero.copies, tr->stream,
                                         tr->grads.data, &s->shards, &tr->buckets));
    else
        TV_TRY(tv_buckets_create(data, tr->stream, tr->grads.data, s->shards.num_buckets,
                                 s->shards.buckets, &tr->buckets));
    const struct tv_kernels *kernels;
    TV_TRY(tv_trainer_kernels(tr, TV_F32, &kernels));
    if (tr->run->grad_dtype == TV_BF16)
        tv_buckets_reduce_in_bf16(tr->buckets, kernels);
    return TV_OK;
}

static tv_status_t create_optimizer(struct tv_trainer *tr)
{
    const struct tv_sharding *s = &tr->sharding;
    const int n = s->num_pieces;
    struct tv_optimizer_range *ranges = calloc((size_t)n + 1, sizeof(*ranges));
    if (ranges == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d optimizer ranges", n);
    for (int i = 0; i < n; i++) {
        const struct tv_owned_piece *piece = &s->pieces[i];
        const struct tv_local_param local = s->locals.params[piece->local];
        ranges[i] = (struct tv_optimizer_range){
            .param = tv_piece_offset(&tr->params, piece),
            .grad = tv_piece_offset(&tr->grads, piece),
            .state = piece->place,
            .count = piece->count,
            .has_decay = local.param->has_decay,
            .lr_group = local.param->is_vocabulary ? TV_LR_VOCABULARY : TV_LR_BODY,
            .matrix = tv_run_is_matrix(tr->run, local.param) ? local.param : NULL,
            .rounded = tv_stored_offset(&tr->weights, piece)};
    }
    struct tv_optimizer_args args = {.stream = tr->stream,
                                     .tensor = tv_mesh_comm(tr->mesh, TV_TENSOR),
                                     .config = tr->run->optimizer,
                                     .count = s->shards.own_count,
                                     .num_ranges = n,
                                     .ranges = ranges};
    tv_status_t status = tv_trainer_kernels(tr, TV_F32, &args.kernels);
    if (status == TV_OK)
        status = tv_optimizer_create(&args, &tr->optimizer);
    free(ranges);
    tr->bad_steps.limit = tr->run->options.skip_bad_steps;
    return status;
}

/* A tied weight whose units lie on two stages: those two stages sum its gradients. */
static tv_status_t create_tied(struct tv_trainer *tr)
{
    const int p = tr->here.at[TV_PIPE];
    if (!tr->run->model.is_tied || tr->embedding_stage == tr->head_stage)
        return TV_OK;
    const int holds = p == tr->embedding_stage || p == tr->head_stage;
    TV_TRY(tv_comm_split(tv_mesh_comm(tr->mesh, TV_PIPE), holds ? 0 : -1, p, &tr->tied));
    if (tr->tied != NULL)
        tv_comm_set_name(tr->tied, "pipe (tied embeddings)");
    for (int i = 0; i < tv_model_num_local_params(tr->model); i++) {
        if (tv_model_local_param(tr->model, i).param->tied_unit >= 0)
            tr->tied_local = i;
    }
    return TV_OK;
}

/* What a rank makes alone. */
static tv_status_t create_own(struct tv_trainer *tr)
{
    TV_TRY(create_buckets(tr));
    TV_TRY(tv_trainer_create_account(tr));
    return create_optimizer(tr);
}

/* What a checkpoint has, and what it takes to write the next. */
static tv_status_t create_state(struct tv_trainer *tr)
{
    const struct tv_run *run = tr->run;
    int first_failed;
    if (run->checkpoint != NULL) {
        TV_TRY(tv_checkpoint_load(tr));
        TV_TRY(tv_trainer_publish_params(tr));
    }
    if (run->options.save == NULL)
        return TV_OK;
    return tv_comm_agree(tv_mesh_world(tr->mesh), tv_saver_create(tr, &tr->saver), &first_failed);
}

/* The parts that talk, each made by all ranks together; of the last one the buffers are a rank's own affair. */
static tv_status_t create_parts(struct tv_trainer *tr)
{
    TV_TRY(create_tied(tr));
    return tv_trainer_fit_batch(tr);
}

tv_status_t tv_trainer_own(const struct tv_trainer *tr, tv_status_t status)
{
    char why[1024], in_use[256] = "";
    snprintf(why, sizeof(why), "%s", tv_error_message());
    if (status != TV_NO_MEMORY || strncmp(why, "rank ", 5) == 0 || strncmp(why, "stage ", 6) == 0)
        return status;
    if (tr->device != NULL && strstr(why, "in use") == NULL) /* tv_buffer_create has said it */
        tv_device_bytes_text(tr->device, in_use, sizeof(in_use));
    return TV_ERR(TV_NO_MEMORY, "rank %d (stage %d, replica %d, tensor rank %d): %s%s%s",
                  tv_comm_rank(tr->world), tr->here.at[TV_PIPE], tr->here.at[TV_DATA],
                  tr->here.at[TV_TENSOR], why, in_use[0] != '\0' ? "; in use, in bytes: " : "",
                  in_use);
}

/* Have all ranks done their parts? Memory runs out on one, and all say on which. */
static tv_status_t agree(const struct tv_trainer *tr, tv_status_t status)
{
    int first_failed;
    return tv_comm_agree(tv_mesh_world(tr->mesh), tv_trainer_own(tr, status), &first_failed);
}

static tv_status_t create_all(struct tv_trainer *tr)
{
    const struct tv_run *run = tr->run;
    int num_threads;
    tv_comm_set_timeout(tr->world, run->options.timeout_seconds);
    TV_TRY(tv_run_mesh_create(tr->world, run, &tr->mesh));
    TV_TRY(tv_clock_offset(tv_mesh_world(tr->mesh), &tr->clock_offset));
    tr->here = tv_mesh_here(tr->mesh);
    TV_TRY(tv_fair_threads(tv_mesh_world(tr->mesh), run->options.num_threads, &num_threads));
    TV_TRY(agree(tr, create_device(tr, num_threads)));
    TV_TRY(tv_run_connect_devices(tr->mesh, run, tr->device)); /* before groups are split */
    TV_TRY(tv_zero_groups_create(run, tv_mesh_comm(tr->mesh, TV_DATA), &tr->zero));
    TV_TRY(agree(tr, tv_file_guard(open_files, tr)));
    TV_TRY(agree(tr, alloc_host(tr)));
    TV_TRY(agree(tr, create_model(tr)));
    TV_TRY(agree(tr, create_own(tr)));
    TV_TRY(agree(tr, create_parts(tr)));
    return create_state(tr);
}

tv_status_t tv_trainer_create(struct tv_comm *world, const struct tv_run *run,
                              struct tv_trainer **trainer_out)
{
    struct tv_trainer *tr = calloc(1, sizeof(*tr));
    if (tr == NULL)
        return TV_ERR(TV_NO_MEMORY, "trainer: %zu bytes", sizeof(*tr));
    tr->run = run;
    tr->world = world;
    tr->embedding_stage = tv_run_stage_of_unit(run, 0);
    tr->head_stage = tv_run_stage_of_unit(run, run->model.num_layers + 1);
    tr->flops_per_token = tv_model_flops_per_token(&run->model, run->seq_length);
    tr->consumed = tv_checkpoint_consumed(run);
    const tv_status_t status = create_all(tr);
    if (status != TV_OK) {
        tv_trainer_destroy(tr);
        return status;
    }
    tr->created_at = tr->step_started_at = tv_clock_seconds();
    *trainer_out = tr;
    return TV_OK;
}

void tv_trainer_destroy(struct tv_trainer *tr)
{
    if (tr == NULL)
        return;
    tv_saver_destroy(tr->saver); /* writes from what is below */
    tv_optimizer_destroy(tr->optimizer);
    tv_buckets_destroy(tr->buckets);
    tv_executor_destroy(tr->executor);
    tv_schedule_destroy(&tr->smaller_schedule);
    tv_model_destroy(tr->model);
    tv_store_destroy(tr->store);
    tv_buffer_destroy(&tr->masters);
    tv_comm_destroy(tr->tied);
    tv_zero_groups_destroy(&tr->zero);
    tv_mesh_destroy(tr->mesh);
    tv_stream_destroy(tr->stream);
    tv_device_close(tr->device);
    tv_corpus_close(tr->data);
    for (int i = 0; i < tr->run->options.valid_data.num; i++)
        tv_corpus_close(tr->valid[i]);
    if (tr->sample_log != NULL)
        fclose(tr->sample_log);
    tv_sharding_destroy(&tr->sharding);
    free(tr->grad_pieces);
    free(tr->branches_done);
    free(tr->costs);
    free(tr->account_rows);
    free(tr->ids);
    free(tr->targets);
    free(tr->positions);
    free(tr->first_keys);
    free(tr->sample);
    free(tr->sample_ids);
    free(tr);
}

const struct tv_corpus *tv_trainer_data(const struct tv_trainer *tr)
{
    return tr->data;
}

int tv_trainer_is_root(const struct tv_trainer *tr)
{
    return tv_mesh_rank(tr->mesh) == 0;
}
