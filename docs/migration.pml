/* The hand-over of a job between two sites, as docs/MIGRATION.md tells it, for the
 * model checker spin: the records of both sites, their leaders, and the messages
 * that decide. Copying, logs and progress are not here: what is fetched is fetched
 * or not.
 *
 * The network is the set of all that was ever said: what is in it may come at any
 * time, any number of times, or never. A leader has no memory here but the record
 * and the network, so another one in its place is no other. Commands that were
 * proposed by who leads no more are in the set of commands: they may be applied at
 * any time, or never; the rules alone say whether they do anything.
 *
 * .ci/run model has the commands.
 *
 *   safe      never two owners, and B is active only with S, without force
 *   settled   in the end one owner, if both go on in the end (weak fairness)
 *
 * -DBUG=1 B activates when it is prepared         -DBUG=2 A resumes without a decision
 * -DBUG=3 unknown is answered "handed over"       -DBUG=4 A hands over before PREPARED
 * -DBUG=5 in doubt B drops by itself              -DBUG=6 A never decides after a time
 */
#ifndef BUG
#define BUG 0
#endif

mtype = { NONE, COPYING, HALTING, OFFERED, HANDED_OVER, ABORTED,   /* of A's record */
          RECEIVING, PREPARED, ACTIVE, DROPPED };                  /* of B's */

mtype a = COPYING;      /* the departure; NONE: forgotten */
mtype b = NONE;         /* the arrival; NONE: it never began */
bool b_forgot = false;  /* B has forgotten the arrival: no other begins with its id */
bool a_runs = true;     /* A may run the job at epoch n */
bool b_runs = false;    /* B may run it at n+1 */
bool have_s = false;    /* B has S and the logs up to E, in truth */

bool tick;

/* what was ever said */
bool m_propose, m_accepted, m_refused, m_offer, m_prepared, m_handed_over, m_aborted, m_unknown, m_done;
/* what was ever proposed: to A, and to B */
bool c_halting, c_offered, c_handed_over, c_aborted, c_forget;
bool c_receiving, c_prepared, c_active, c_drop_own, c_dropped, c_forget_b;

#define decided_a (a == HANDED_OVER || a == ABORTED || a == NONE)
#define decided_b (b == NONE || b == ACTIVE || b == DROPPED)

/* The rules of A's replicated state. */
inline apply_a() {
    if
    :: c_halting && a == COPYING -> a = HALTING
    :: c_offered && a == HALTING -> a = OFFERED; a_runs = false
    :: c_handed_over && a == OFFERED -> a = HANDED_OVER
    :: c_aborted && (a == COPYING || a == HALTING || a == OFFERED) -> a = ABORTED; a_runs = true
    :: c_forget && (a == HANDED_OVER || a == ABORTED) -> a = NONE
    fi
}

/* The rules of B's. A drop of its own holds only while nothing is PREPARED. */
inline apply_b() {
    if
    :: c_receiving && b == NONE && !b_forgot -> b = RECEIVING
    :: c_prepared && b == RECEIVING -> b = PREPARED
    :: c_active && b == PREPARED -> b = ACTIVE; b_runs = true
    :: (c_drop_own && b == RECEIVING) || (c_dropped && (b == RECEIVING || b == PREPARED)) -> b = DROPPED
    :: c_forget_b && (b == ACTIVE || b == DROPPED) -> b = NONE; b_forgot = true
    fi
}

/* A's leaders: whatever the record is, what they may say and propose. */
proctype A() {
    do
    :: atomic { a == COPYING && !m_propose -> m_propose = true }
    :: atomic { a == COPYING && m_accepted && !c_halting -> c_halting = true }
    :: atomic { a == HALTING && !c_offered -> c_offered = true }
    :: atomic { a == OFFERED && !m_offer -> m_offer = true }
    :: atomic { a == OFFERED && (m_prepared || BUG == 4) && !c_handed_over -> c_handed_over = true }
#if BUG != 6
    /* refused, cancelled, the job ended, or too late */
    :: atomic { (a == COPYING || a == HALTING || a == OFFERED) && !c_aborted -> c_aborted = true }
#endif
    :: atomic { a == HANDED_OVER && !m_handed_over -> m_handed_over = true }
    :: atomic { a == ABORTED && !m_aborted -> m_aborted = true }
    :: atomic { (a == HANDED_OVER || a == ABORTED) && m_done && !c_forget -> c_forget = true }
    /* no record of it, and its index was applied: unknown */
    :: atomic { a == NONE && (m_accepted || m_prepared) && !m_unknown ->
           m_unknown = true; m_handed_over = m_handed_over || BUG == 3 }
#if BUG == 2
    :: atomic { a == OFFERED && !a_runs -> a_runs = true }
#endif
    :: atomic { apply_a() }
    od
}

/* B's leaders. */
proctype B() {
    do
    :: atomic { b == NONE && !b_forgot && m_propose && !c_receiving -> c_receiving = true }
    :: atomic { b == NONE && m_propose && !m_refused -> m_refused = true }
    :: atomic { b == RECEIVING && !m_accepted -> m_accepted = true }
    :: atomic { b == RECEIVING && m_offer && !have_s -> have_s = true }
    :: atomic { b == RECEIVING && have_s && !c_prepared -> c_prepared = true }
    :: atomic { b == RECEIVING && !c_drop_own -> c_drop_own = true }
    :: atomic { b == PREPARED && !m_prepared -> m_prepared = true }
    :: atomic { b == PREPARED && (m_handed_over || BUG == 1) && !c_active -> c_active = true }
    :: atomic { (b == RECEIVING || b == PREPARED) && (m_aborted || m_unknown || (BUG == 5 && b == PREPARED)) && !c_dropped -> c_dropped = true }
    :: atomic { (b == ACTIVE || b == DROPPED) && !m_done -> m_done = true }
    /* no record: forgotten. Or an agent of B that has not applied it yet; that one answers only an abort */
    :: atomic { (b_forgot && m_handed_over || m_aborted) && !m_done -> m_done = true }
    :: atomic { (b == ACTIVE || b == DROPPED) && !c_forget_b -> c_forget_b = true }
    :: atomic { apply_b() }
    od
}

/* Nothing ends: who waits for ever waits in a cycle, and spin sees it. */
proctype Time() {
    do :: tick = !tick od
}

init { atomic { run A(); run B(); run Time() } }

#define two_owners (a_runs && b_runs)
#define one_owner ((a_runs && !b_runs) || (!a_runs && b_runs))

ltl safe { [] (!two_owners && (b == ACTIVE -> have_s)) }
ltl settled { <> [] (one_owner && decided_a && decided_b) }
