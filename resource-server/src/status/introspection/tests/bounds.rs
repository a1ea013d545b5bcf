//! How many may ask and wait at one time.

use super::*;

/// Whatever comes in the place of an answer: a server in trouble is not asked by everybody at once.
#[tokio::test]
async fn a_server_that_fails_is_asked_one_at_a_time() {
    for error in failures_of_a_server() {
        let scene = Scene::new();
        scene.fails(Says::Fails(error.clone()));
        assert_eq!(scene.ends().await, UNAVAILABLE);
        scene.double.wait(MILLISECOND);
        scene.server.gate.forget_permits(Semaphore::MAX_PERMITS);
        let mut calls = scene.begin((0..20).map(|n| nth(&scene, n)));
        for _ in 0..19 {
            let refused = calls.join_next().await.unwrap().unwrap().unwrap_err();
            assert_eq!(refused.reason(), "introspection_unavailable");
        }
        assert_eq!(scene.asked(), 2, "{error}: one of twenty asked");
        scene.says(&json!({ "active": false }));
        scene.server.gate.add_permits(1_000);
        assert_eq!(calls.join_next().await.unwrap().unwrap().unwrap_err().reason(), "introspection_inactive");
        let introspection = scene.double.guard.judgement.introspection.as_ref().unwrap();
        assert!(!introspection.failing.load(Ordering::Relaxed), "{error}: it is over");
    }
    // An answer that is none says nothing against the next one.
    let scene = Scene::new();
    scene.says_raw("garbage");
    assert_eq!(scene.ends().await, UNAVAILABLE);
    let introspection = scene.double.guard.judgement.introspection.as_ref().unwrap();
    assert!(!introspection.failing.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_server_that_never_answers_is_asked_one_at_a_time() {
    let scene = Scene::with_patience(Duration::from_millis(20));
    assert_eq!(scene.ends().await, None);
    assert!(scene.double.guard.is_ready());
    scene.double.wait(SECOND);
    scene.fails(Says::Nothing);
    assert_eq!(scene.ends().await, UNAVAILABLE);
    let introspection = scene.double.guard.judgement.introspection.as_ref().unwrap();
    while introspection.is_answered() {
        tokio::task::yield_now().await; // the caller's patience ends just before the question's
    }
    assert!(!scene.double.guard.is_ready());
    assert_eq!(scene.asked(), 2);
    let mut calls = scene.begin((0..100).map(|n| nth(&scene, n)));
    while let Some(call) = calls.join_next().await {
        assert_eq!(call.unwrap().unwrap_err().reason(), "introspection_unavailable");
    }
    assert_eq!(scene.asked(), 3, "one of a hundred asked");
    scene.says(&scene.active());
    while introspection.probe.available_permits() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.ends().await, None);
    assert!(!introspection.failing.load(Ordering::Relaxed));
    assert!(scene.double.guard.is_ready());
}

#[tokio::test]
async fn no_client_takes_all_the_questions() {
    let scene = Scene::new();
    scene.fails(Says::Active);
    scene.server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let mut calls = scene.begin((0..MOST_QUESTIONS_OF_A_CLIENT).map(|n| of_client(&scene, 1, n)));
    while scene.asked() < MOST_QUESTIONS_OF_A_CLIENT {
        tokio::task::yield_now().await;
    }
    let refused = scene.call(&of_client(&scene, 1, MOST_QUESTIONS_OF_A_CLIENT)).await.unwrap_err();
    assert_eq!((refused.reason(), scene.asked()), ("introspection_unavailable", MOST_QUESTIONS_OF_A_CLIENT));
    let other = scene.undecided(&of_client(&scene, 2, 0));
    calls.spawn(other.settle());
    while scene.asked() == MOST_QUESTIONS_OF_A_CLIENT {
        tokio::task::yield_now().await; // another's is asked
    }
    scene.server.gate.add_permits(1_000);
    while let Some(call) = calls.join_next().await {
        assert!(call.unwrap().is_ok());
    }
    scene.double.wait(MILLISECOND);
    assert!(scene.call(&of_client(&scene, 1, MOST_QUESTIONS_OF_A_CLIENT)).await.is_ok(), "there is room again");
}

#[tokio::test]
async fn no_client_takes_all_the_places_to_wait() {
    let scene = Scene::new();
    scene.fails(Says::Active);
    scene.server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let mut calls = scene.begin([&scene.token; MOST_WAITING_OF_A_CLIENT]);
    let introspection = scene.double.guard.judgement.introspection.as_ref().unwrap();
    while introspection.waiting.available_permits() > MOST_WAITING - MOST_WAITING_OF_A_CLIENT {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.ends().await, UNAVAILABLE);
    let other = scene.undecided(&of_client(&scene, 2, 0));
    calls.spawn(other.settle());
    scene.server.gate.add_permits(1_000);
    while let Some(call) = calls.join_next().await {
        assert!(call.unwrap().is_ok());
    }
}

#[tokio::test]
async fn one_question_too_many() {
    let scene = Scene::new();
    scene.fails(Says::Active);
    scene.server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let mut calls = scene.begin((0..MOST_QUESTIONS).map(|n| of_client(&scene, n / MOST_QUESTIONS_OF_A_CLIENT, n)));
    while scene.asked() < MOST_QUESTIONS {
        tokio::task::yield_now().await;
    }
    let refused = scene.call(&of_client(&scene, 99, 0)).await.unwrap_err();
    assert_eq!((refused.reason(), scene.asked()), ("introspection_unavailable", MOST_QUESTIONS));
    // The 256th was asked; and with a place free there is one more.
    scene.server.gate.add_permits(1_000);
    while calls.join_next().await.is_some() {}
    scene.double.wait(MILLISECOND);
    scene.call(&of_client(&scene, 99, 0)).await.unwrap();
    assert_eq!(scene.asked(), MOST_QUESTIONS + 1);
}

#[tokio::test]
async fn one_call_too_many() {
    let scene = Scene::new();
    scene.fails(Says::Active);
    scene.server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let tokens = (0..MOST_WAITING / MOST_WAITING_OF_A_CLIENT).map(|client| of_client(&scene, 10 + client, 0));
    let mut calls = scene.begin(tokens.flat_map(|token| std::iter::repeat_n(token, MOST_WAITING_OF_A_CLIENT)));
    let introspection = scene.double.guard.judgement.introspection.as_ref().unwrap();
    while introspection.waiting.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.ends().await, UNAVAILABLE);
    scene.server.gate.add_permits(1_000);
    while let Some(call) = calls.join_next().await {
        assert!(call.unwrap().is_ok());
    }
    assert_eq!((scene.ends().await, scene.asked()), (None, 9), "one for each client, and this");
}
