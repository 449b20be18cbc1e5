/* tests/pipeline/contract_executor_stage.cc -- stage functions that watch the executor, and lists to
 * run it with. */
#include "pipeline/contract_executor.h"
#include "pipeline/executor_internal.h"
#include <random>
#include <unistd.h>

/* ---- lists ---- */

Table chunkwise(Table table, bool is_split)
{
    const int v = table.num_chunks, m = table.num_micro;
    auto add = [&](int stage, tv_action_kind_t kind, int chunk) {
        for (int i = 0; i < m; i++)
            table.add(stage, kind, chunk, i);
    };
    for (int r = 0; r < (int)table.stages.size(); r++) {
        for (int c = 0; c < v; c++)
            add(r, TV_ACT_FORWARD, c);
        for (int c = v - 1; c >= 0; c--) {
            add(r, is_split ? TV_ACT_BACKWARD_INPUT : TV_ACT_BACKWARD, c);
            if (is_split && c < v - 1)
                add(r, TV_ACT_BACKWARD_WEIGHT, c + 1);
        }
        if (is_split)
            add(r, TV_ACT_BACKWARD_WEIGHT, 0);
    }
    return table.lowered();
}

Table blocks(int P, int v, int m)
{
    Table table(P, v, m);
    for (int place = 0; place < P * v; place++)
        table.position_of[(size_t)place] = place;
    return table;
}

/* What is done of (position, micro-batch): bit per kind. */
struct AnyOrder {
    int positions, m;
    std::vector<unsigned> done;

    unsigned at(int position, int micro) const
    {
        return done[(size_t)(position * m + micro)];
    }
    static bool has(unsigned bits, tv_action_kind_t kind)
    {
        return bits >> kind & 1;
    }
    static bool has_dx(unsigned bits)
    {
        return has(bits, TV_ACT_BACKWARD) || has(bits, TV_ACT_BACKWARD_INPUT);
    }
    bool can(tv_action_kind_t kind, int position, int micro) const
    {
        const unsigned bits = at(position, micro);
        if (kind == TV_ACT_FORWARD)
            return !has(bits, kind) &&
                   (position == 0 || has(at(position - 1, micro), TV_ACT_FORWARD));
        if (kind == TV_ACT_BACKWARD_WEIGHT)
            return has(bits, TV_ACT_BACKWARD_INPUT) && !has(bits, kind);
        return has(bits, TV_ACT_FORWARD) && !has_dx(bits) &&
               (position == positions - 1 || has_dx(at(position + 1, micro)));
    }
};

Table any_order(int P, int v, int m, unsigned seed)
{
    std::mt19937 random(seed);
    Table table(P, v, m);
    table.name = "any order " + std::to_string(seed);
    table.is_ordered = false;
    std::shuffle(table.position_of.begin(), table.position_of.end(), random);
    for (int r = 0; r < P; r++)
        std::sort(table.position_of.begin() + r * v, table.position_of.begin() + (r + 1) * v);
    AnyOrder order = {P * v, m, std::vector<unsigned>((size_t)(P * v * m))};
    for (;;) {
        std::vector<std::pair<int, struct tv_action>> possible; /* stage, action */
        for (int place = 0; place < P * v * m * 4; place++) {
            const auto kind = (tv_action_kind_t)(place % 4);
            const int micro = place / 4 % m, chunk = place / 4 / m % v, stage = place / 4 / m / v;
            const int position = table.position_of[(size_t)(stage * v + chunk)];
            if (order.can(kind, position, micro))
                possible.push_back({stage, {kind, chunk, micro, -1, 0}});
        }
        if (possible.empty())
            return table.lowered();
        const auto &[stage, a] = possible[random() % possible.size()];
        const int position = table.position_of[(size_t)(stage * v + a.chunk)];
        table.add(stage, a.kind, a.chunk, a.micro);
        order.done[(size_t)(position * m + a.micro)] |= 1u << a.kind;
    }
}

std::vector<Table> tables(int P, int m)
{
    std::vector<Table> all;
    auto add = [&](const char *name, Table table) {
        table.name = name;
        all.push_back(table);
    };
    for (int i = 0; tv_schedule_name(i) != nullptr; i++) {
        for (int v = 1; v <= 3; v++) {
            if (tv_schedule_check_chunks(tv_schedule_name(i), v) == TV_OK)
                all.push_back(Table::built(tv_schedule_name(i), P, m, v));
        }
    }
    all.push_back(interleaved(P, 2, m, 1));
    add("loop", chunkwise(Table(P, 2, m), true));
    add("V", chunkwise(Table(P, 2, m, TV_PLACE_V), false));
    add("V split", chunkwise(Table(P, 2, m, TV_PLACE_V), true));
    add("blocks", chunkwise(blocks(P, 3, m), true));
    for (unsigned seed = 1; seed <= 4; seed++)
        all.push_back(any_order(P, 1 + (int)seed % 3, m, seed));
    return all;
}

/* ---- stage functions ---- */

LinearStage::LinearStage(struct tv_comm *pipe, Table *table, int64_t count_)
    : stage(tv_comm_rank(pipe)), num_micro(table->num_micro), count(count_),
      stride(count_ > 4096 ? 997 : 1), schedule(table->schedule())
{
    for (int c = 0; c < schedule->num_chunks; c++) {
        slots.emplace_back(tv_schedule_chunk_slots(schedule, stage, c), -1);
        works.emplace_back(tv_schedule_chunk_works(schedule, stage, c), -1);
        num_weight_gradients.push_back(0);
    }
    calls.reserve(4096);
}

int LinearStage::last_position() const
{
    return schedule->num_stages * schedule->num_chunks - 1;
}

int LinearStage::position_of(const struct tv_stage_call &call) const
{
    return tv_schedule_position(schedule, stage, call.chunk);
}

static float apply(int position, int micro, float value)
{
    return value * (position % 4 == 1 ? 2.0f : 1.0f) + (float)(micro + 1);
}

/* What position `position` receives, or makes if it is the first. */
float LinearStage::input(int position, int micro, int64_t j) const
{
    float x = (float)(64 * step + 8 * micro + j % 7 + (is_eval ? 1 << 12 : 0));
    for (int p = 0; p < position; p++)
        x = apply(p, micro, x);
    return x;
}

/* Gradient of the output of `position`. */
float LinearStage::gradient(int position, int micro, int64_t j) const
{
    float dy = (float)(32 * step + 4 * micro + j % 5 + 1);
    for (int p = last_position(); p > position; p--)
        dy = apply(p, micro, dy);
    return dy;
}

void LinearStage::expect_values(const float *got, const char *what,
                                const struct tv_stage_call &call) const
{
    int64_t num_wrong = 0;
    for (int64_t j = 0; j < count; j += stride) {
        const float want = what[0] == 'x' ? input(position_of(call), call.micro, j)
                                          : gradient(position_of(call), call.micro, j);
        num_wrong += got[j] != want;
    }
    EXPECT_EQ(0, num_wrong) << what << " of stage " << stage << ", chunk " << call.chunk
                            << ", micro-batch " << call.micro << ", step " << step;
}

/* Stages take turns at being late. */
void LinearStage::delay(const struct tv_stage_call &call) const
{
    if (has_delays)
        usleep((unsigned)((call.micro * 5 + stage * 3 + (int)calls.size()) % 4) * 150 +
               (unsigned)late_us);
}

/* Slot and work are this micro-batch's, and nobody else's while it holds them. */
void LinearStage::expect_places(tv_action_kind_t kind, const struct tv_stage_call &call)
{
    int &slot = slots[(size_t)call.chunk].at((size_t)call.slot);
    int &work = works[(size_t)call.chunk].at((size_t)call.work);
    EXPECT_EQ(kind == TV_ACT_FORWARD ? -1 : call.micro, slot);
    EXPECT_EQ(kind == TV_ACT_BACKWARD_WEIGHT ? call.micro : -1, work);
    slot = tv_action_makes_dw(kind) ? -1 : call.micro;
    work = kind == TV_ACT_BACKWARD_INPUT ? call.micro : -1;
}

void LinearStage::forward(const struct tv_stage_call &call)
{
    const int position = position_of(call);
    EXPECT_EQ(position == last_position(), call.y == nullptr);
    EXPECT_TRUE(call.dy == nullptr && call.dx == nullptr && !call.is_last_backward);
    const auto *in = static_cast<const float *>(call.x);
    auto *y = static_cast<float *>(call.y);
    for (int64_t j = 0; y != nullptr && j < count; j += stride) {
        const float x = in != nullptr ? in[j] : input(0, call.micro, j);
        y[j] = apply(position, call.micro, x);
    }
}

void LinearStage::backward(tv_action_kind_t kind, const struct tv_stage_call &call)
{
    const int position = position_of(call);
    int &num = num_weight_gradients[(size_t)call.chunk];
    num += tv_action_makes_dw(kind);
    EXPECT_EQ(tv_action_makes_dw(kind) && num == num_micro, call.is_last_backward != 0);
    num %= num_micro;
    EXPECT_EQ(nullptr, call.y);
    EXPECT_EQ(position == last_position(), call.dy == nullptr);
    EXPECT_EQ(position == 0 || kind == TV_ACT_BACKWARD_WEIGHT, call.dx == nullptr);
    if (call.dy != nullptr)
        expect_values(static_cast<const float *>(call.dy), "dy", call);
    const auto *dy = static_cast<const float *>(call.dy);
    auto *dx = static_cast<float *>(call.dx);
    for (int64_t j = 0; dx != nullptr && j < count; j += stride)
        dx[j] =
            apply(position, call.micro, dy != nullptr ? dy[j] : gradient(position, call.micro, j));
}

tv_status_t LinearStage::call(tv_action_kind_t kind, const struct tv_stage_call &call)
{
    before_call();
    calls.push_back({kind, call});
    if (kind == TV_ACT_FORWARD && call.micro == fail_micro)
        return TV_ERR(TV_NUMERIC, "stage %d fails on purpose", stage);
    if (!is_eval)
        expect_places(kind, call);
    delay(call);
    EXPECT_EQ(position_of(call) == 0, call.x == nullptr);
    if (call.x != nullptr)
        expect_values(static_cast<const float *>(call.x), "x", call);
    if (kind == TV_ACT_FORWARD)
        forward(call);
    else
        backward(kind, call);
    after_call();
    return TV_OK;
}

struct tv_stage_functions LinearStage::functions()
{
    return {this,
            [](void *self, const struct tv_stage_call *call) {
                return ((LinearStage *)self)->call(TV_ACT_FORWARD, *call);
            },
            [](void *self, const struct tv_stage_call *call) {
                return ((LinearStage *)self)->call(TV_ACT_BACKWARD, *call);
            },
            [](void *self, const struct tv_stage_call *call) {
                return ((LinearStage *)self)->call(TV_ACT_BACKWARD_INPUT, *call);
            },
            [](void *self, const struct tv_stage_call *call) {
                return ((LinearStage *)self)->call(TV_ACT_BACKWARD_WEIGHT, *call);
            }};
}

/* ---- a rank ---- */

Pipeline::Pipeline(struct tv_comm *pipe, Table schedule, int64_t count)
    : table(std::move(schedule)), stage(pipe, &table, count)
{
    EXPECT_EQ(TV_OK, tv_device_open(TV_DEVICE_CPU, 1, &device));
    EXPECT_EQ(TV_OK, tv_stream_create(device, &stream));
    EXPECT_EQ(TV_OK, tv_executor_create(pipe, stream, table.schedule(), count, TV_F32, &executor))
        << tv_error_message();
    has_failed = executor == nullptr;
}

Pipeline::~Pipeline()
{
    tv_executor_destroy(executor);
    EXPECT_EQ(0, bytes());
    tv_stream_destroy(stream);
    tv_device_close(device);
}

int64_t Pipeline::bytes() const
{
    size_t bytes = 0;
    for (int kind = 0; kind < TV_NUM_MEM_KINDS; kind++)
        bytes += tv_device_bytes(device, (tv_mem_kind_t)kind);
    return (int64_t)bytes;
}

tv_status_t Pipeline::run(struct tv_executor_report *report)
{
    const struct tv_stage_functions functions = stage.functions();
    stage.calls.clear();
    stage.step++;
    return tv_executor_run(executor, &functions, report);
}

void Pipeline::expect_times(const struct tv_executor_report &report) const
{
    const std::vector<struct tv_action> &list = table.stages[(size_t)executor->stage];
    const struct tv_action_time *times = tv_executor_times(executor);
    double now = report.started, busy = 0, warmup = 0, wait = 0;
    for (size_t i = 0; i < list.size(); i++) {
        const double seconds = times[i].end - times[i].start;
        EXPECT_LE(now, times[i].start) << "action " << i;
        EXPECT_GE(seconds, 0) << "action " << i;
        now = times[i].end;
        if (tv_action_is_compute(list[i].kind))
            busy += seconds;
        else if (tv_action_is_recv(list[i].kind))
            (busy > 0 ? wait : warmup) += seconds;
    }
    EXPECT_LE(now, report.ended);
    EXPECT_DOUBLE_EQ(busy, report.busy_seconds);
    EXPECT_DOUBLE_EQ(warmup, report.warmup_seconds);
    EXPECT_DOUBLE_EQ(wait, report.wait_seconds);
    EXPECT_GE(report.drain_seconds, 0);
    EXPECT_LE(report.drain_seconds, report.ended - now);
}

void Pipeline::expect_step()
{
    struct tv_executor_report report = {-1, -1, -1, -1, -1, -1};
    if (has_failed)
        return;
    const tv_status_t status = run(&report);
    has_failed = status != TV_OK;
    ASSERT_OK(status);
    std::vector<struct tv_action> want = table.stages[(size_t)executor->stage], got;
    for (struct tv_action &action : want)
        action.is_paired = 0; /* pairs run in turn */
    for (const Call &call : stage.calls)
        got.push_back({call.kind, call.args.chunk, call.args.micro, -1, 0});
    EXPECT_EQ(text_of(want, true), text_of(got));
    expect_times(report);
}

void Pipeline::expect_evaluation(int num_micro)
{
    const struct tv_stage_functions functions = stage.functions();
    if (has_failed)
        return;
    stage.calls.clear();
    stage.is_eval = true;
    const tv_status_t status = tv_executor_run_forward(executor, num_micro, &functions);
    stage.is_eval = false;
    has_failed = status != TV_OK;
    ASSERT_OK(status);
    std::vector<int> next((size_t)table.num_chunks);
    for (const Call &call : stage.calls) {
        EXPECT_EQ(TV_ACT_FORWARD, call.kind);
        EXPECT_EQ(next[(size_t)call.args.chunk]++, call.args.micro);
        EXPECT_EQ(0, call.args.slot);
        EXPECT_EQ(0, call.args.work);
    }
    EXPECT_EQ(std::vector<int>((size_t)table.num_chunks, num_micro), next);
}
