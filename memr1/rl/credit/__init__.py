"""Credit for whole conversations: LoGo-GRPO, the local and global groups of Memory-R2 (arXiv 2605.21768).

    curriculum      what a step reads: conversations, sessions, questions, sessions to read again · pure
    trajectories    the policy reads, with the real bank builder; a session is read again from the bank before it
    scoring         rollouts to rewards, by the frozen Answer Agent
    advantages      rewards to advantages and weights, rollouts to rows and figures · pure
    trainer         the hook into TRL
    task            all of it, put together for one run

Credit by single turns (the paper's) is memr1.rl.rollout.
"""
