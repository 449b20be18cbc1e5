// Hand-broken schedules: each is rejected, and the message names the first offending action.
#include "pipeline/schedule.h"
#include <cstring>
#include <gtest/gtest.h>
#include <utility>

namespace
{
struct Broken : testing::Test {
    tv_schedule s = {};
    void SetUp() override
    {
        ASSERT_EQ(tv_schedule_build("1f1b", 3, 4, &s), TV_OK);
        ASSERT_EQ(tv_schedule_check(&s, 0), TV_OK);
    }
    void TearDown() override
    {
        tv_schedule_destroy(&s);
    }
    int find(int stage, tv_action_kind_t kind, int micro)
    {
        for (int i = 0; i < s.stages[stage].num_actions; i++)
            if (s.stages[stage].actions[i].kind == kind &&
                s.stages[stage].actions[i].micro == micro)
                return i;
        ADD_FAILURE() << "no such action";
        return 0;
    }
    void erase(int stage, int i)
    {
        tv_action_list &list = s.stages[stage];
        std::memmove(&list.actions[i], &list.actions[i + 1],
                     sizeof(tv_action) * (size_t)(list.num_actions - i - 1));
        list.num_actions--;
    }
    void swap(int stage, int i, int j)
    {
        std::swap(s.stages[stage].actions[i], s.stages[stage].actions[j]);
    }
    void expect(const char *words)
    {
        EXPECT_EQ(tv_schedule_check(&s, 0), TV_INVALID);
        EXPECT_NE(std::strstr(tv_error_message(), words), nullptr) << tv_error_message();
    }
};
} // namespace

TEST_F(Broken, BackwardBeforeItsForward)
{
    const int f = find(2, TV_ACT_FORWARD, 0), b = find(2, TV_ACT_BACKWARD, 0);
    swap(2, f, b);
    expect("stage 2, action 1: B of micro-batch 0, chunk 0: before its F");
}

TEST_F(Broken, ForwardMissing)
{
    // The send behind it is the first action that cannot stand.
    erase(0, find(0, TV_ACT_FORWARD, 3));
    expect("SEND_F of micro-batch 3, chunk 0: before its F");
}

TEST_F(Broken, BackwardMissing)
{
    const int last = s.stages[0].num_actions - 1;
    erase(0, last);
    expect("stage 0: B of micro-batch 3, chunk 0 is missing");
}

TEST_F(Broken, MessageMissing)
{
    erase(1, find(1, TV_ACT_SEND_FORWARD, 3));
    expect("stage 1: SEND_F of micro-batch 3, chunk 0 is missing");
}

TEST_F(Broken, ReceiveMissing)
{
    erase(1, find(1, TV_ACT_RECV_FORWARD, 2));
    expect("F of micro-batch 2, chunk 0: before its input was received");
}

TEST_F(Broken, GradientNotReceived)
{
    erase(1, find(1, TV_ACT_RECV_BACKWARD, 1));
    expect("B of micro-batch 1, chunk 0: before its gradient was received");
}

TEST_F(Broken, AnActionTwice)
{
    const int i = find(0, TV_ACT_FORWARD, 1);
    s.stages[0].actions[i].micro = 0;
    expect("F of micro-batch 0, chunk 0: a second time");
}

TEST_F(Broken, BackwardsMustAscend)
{
    // gpipe allows the other order in principle; the contract of equal bits does not.
    tv_schedule g = {};
    ASSERT_EQ(tv_schedule_build("gpipe", 1, 2, &g), TV_OK);
    std::swap(g.stages[0].actions[2], g.stages[0].actions[3]);
    EXPECT_EQ(tv_schedule_check(&g, 0), TV_INVALID);
    EXPECT_NE(std::strstr(tv_error_message(), "ascend"), nullptr) << tv_error_message();
    tv_schedule_destroy(&g);
}

TEST_F(Broken, SendsInAnotherOrderThanReceives)
{
    const int a = find(0, TV_ACT_SEND_FORWARD, 0), b = find(0, TV_ACT_FORWARD, 1);
    // F0 F1 SEND1 SEND0: stage 1 expects 0 first
    swap(0, a, b);
    const int first = find(0, TV_ACT_SEND_FORWARD, 0), second = find(0, TV_ACT_SEND_FORWARD, 1);
    swap(0, first, second);
    expect("does not match the order in which its peer sends");
}

TEST_F(Broken, StagesThatWaitForEachOther)
{
    // Stage 0 wants the gradient of micro-batch 0 before it sends the activations of micro-batch 0.
    const int send = find(0, TV_ACT_SEND_FORWARD, 0), recv = find(0, TV_ACT_RECV_BACKWARD, 0);
    swap(0, send, recv);
    expect("waits for ever");
}

TEST_F(Broken, WrongPeerWrongMicroWrongKind)
{
    const int i = find(1, TV_ACT_SEND_FORWARD, 0);
    s.stages[1].actions[i].peer = 0;
    expect("wrong stage");
    s.stages[1].actions[i].peer = 2;
    s.stages[1].actions[i].micro = 4;
    expect("no such micro-batch");
    s.stages[1].actions[i].micro = -1;
    expect("no such micro-batch");
    s.stages[1].actions[i].micro = 0;
    s.stages[1].actions[i].kind = (tv_action_kind_t)77;
    expect("unknown kind 77");
}

TEST_F(Broken, SizesThatMakeNoSense)
{
    s.num_micro = 0;
    expect("0 micro-batches");
    s.num_micro = 4;
}
