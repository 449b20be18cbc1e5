// A pipeline of stages that add up: position s computes y = x + 10^... exactly in floats, so that any swapped message
// or wrong slot shows as a wrong number.
#pragma once
#include "pipeline/executor.h"
#include <gtest/gtest.h>
#include <set>
#include <vector>

struct StageLog {
    int stage = 0, num_stages = 1, num_slots = 0, fail_at = -1;
    int64_t count = 4;
    std::vector<int> forwards, backwards; // micro-batches in call order
    std::vector<const float *> x_of;      // x of forward, by micro-batch
    std::set<int> busy_slots;
    std::vector<int> slot_of;
    int last_backwards = 0;
    bool ok = true;
};

// Activations of micro-batch i after stage s are i + 0.5 (s + 1); gradients after stage s going down are -i - s.
inline tv_status_t case_forward(void *context, const tv_stage_call *call)
{
    auto *log = static_cast<StageLog *>(context);
    if (call->micro == log->fail_at)
        return TV_ERR(TV_INTERNAL, "stage function failed on purpose");
    log->ok &= (call->x == nullptr) == (log->stage == 0);
    log->ok &= (call->y == nullptr) == (log->stage == log->num_stages - 1);
    log->ok &= call->slot >= 0 && call->slot < log->num_slots;
    log->ok &= log->busy_slots.insert(call->slot).second;
    log->slot_of.resize(std::max(log->slot_of.size(), (size_t)call->micro + 1));
    log->x_of.resize(log->slot_of.size());
    log->slot_of[(size_t)call->micro] = call->slot;
    log->x_of[(size_t)call->micro] = call->x;
    for (int64_t e = 0; call->x && e < log->count; e++)
        log->ok &= call->x[e] == (float)call->micro + 0.5f * (float)log->stage;
    for (int64_t e = 0; call->y && e < log->count; e++)
        call->y[e] = (float)call->micro + 0.5f * (float)(log->stage + 1);
    log->forwards.push_back(call->micro);
    return TV_OK;
}

inline tv_status_t case_backward(void *context, const tv_stage_call *call)
{
    auto *log = static_cast<StageLog *>(context);
    log->ok &= (call->dy == nullptr) == (log->stage == log->num_stages - 1);
    log->ok &= (call->dx == nullptr) == (log->stage == 0);
    log->ok &= call->slot == log->slot_of[(size_t)call->micro];
    log->ok &= call->x == log->x_of[(size_t)call->micro];
    log->ok &= log->busy_slots.erase(call->slot) == 1;
    for (int64_t e = 0; call->x && e < log->count; e++) // x must have survived until here
        log->ok &= call->x[e] == (float)call->micro + 0.5f * (float)log->stage;
    for (int64_t e = 0; call->dy && e < log->count; e++)
        log->ok &= call->dy[e] == -(float)(call->micro + log->stage + 1);
    for (int64_t e = 0; call->dx && e < log->count; e++)
        call->dx[e] = -(float)(call->micro + log->stage);
    log->last_backwards += call->is_last_backward;
    log->backwards.push_back(call->micro);
    return TV_OK;
}

// Micro-batches of one kind of compute in the order of the stage's list.
inline std::vector<int> listed(const tv_schedule &schedule, int stage, tv_action_kind_t kind)
{
    std::vector<int> micro;
    for (int i = 0; i < schedule.stages[stage].num_actions; i++)
        if (schedule.stages[stage].actions[i].kind == kind)
            micro.push_back(schedule.stages[stage].actions[i].micro);
    return micro;
}

// One rank's part: `steps` walks, each checked, then an evaluation of `num_eval` micro-batches.
inline void run_case(tv_comm *pipe, const tv_schedule &schedule, int64_t count, int steps,
                     int num_eval)
{
    tv_device *device = nullptr;
    tv_stream *stream = nullptr;
    tv_executor *executor = nullptr;
    const int stage = tv_comm_rank(pipe);
    ASSERT_EQ(tv_device_open(TV_DEVICE_CPU, 1, &device), TV_OK);
    ASSERT_EQ(tv_stream_create(device, &stream), TV_OK);
    ASSERT_EQ(tv_executor_create(pipe, stream, &schedule, count, &executor), TV_OK)
        << tv_error_message();
    EXPECT_EQ((int64_t)tv_device_bytes(device, TV_MEM_BUFFERS),
              tv_executor_buffer_bytes(&schedule, stage, count));
    for (int step = 0; step < steps; step++) {
        StageLog log;
        log.stage = stage;
        log.num_stages = schedule.num_stages;
        log.num_slots = tv_executor_num_slots(executor);
        log.count = count;
        const tv_stage_functions functions = {&log, case_forward, case_backward};
        tv_executor_report report = {};
        ASSERT_EQ(tv_executor_run(executor, &functions, &report), TV_OK) << tv_error_message();
        EXPECT_TRUE(log.ok) << "stage " << stage << " step " << step;
        EXPECT_EQ(log.forwards, listed(schedule, stage, TV_ACT_FORWARD));
        EXPECT_EQ(log.backwards, listed(schedule, stage, TV_ACT_BACKWARD));
        EXPECT_EQ(log.last_backwards, 1);
        EXPECT_LE(report.busy_seconds + report.wait_seconds, report.window_seconds * 1.0001);
    }
    StageLog log;
    log.stage = stage;
    log.num_stages = schedule.num_stages;
    log.num_slots = 1;
    log.count = count;
    struct Forget { // evaluation keeps nothing: a slot is free again at once
        static tv_status_t forward(void *context, const tv_stage_call *call)
        {
            const tv_status_t status = case_forward(context, call);
            static_cast<StageLog *>(context)->busy_slots.clear();
            return status;
        }
    };
    const tv_stage_functions functions = {&log, Forget::forward, case_backward};
    ASSERT_EQ(tv_executor_run_forward(executor, num_eval, &functions), TV_OK) << tv_error_message();
    EXPECT_TRUE(log.ok);
    EXPECT_EQ((int)log.forwards.size(), num_eval);
    tv_executor_destroy(executor);
    tv_stream_destroy(stream);
    tv_device_close(device);
}
